"""What a process may use: of a machine, and in a container."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from actors.node_resources import node_resources, oom_kills, threads_of

V2_MOUNT = "31 23 0:28 {top} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate"
V1_MOUNTS = """\
32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {top} /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
36 31 0:33 / /proc rw - proc proc rw"""
GIB = 2**30
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MEMORY_BYTES = psutil.virtual_memory().total


def system(root: Path, mounts: str, groups: str, files: Mapping[str, str]) -> Path:
    """Make as much of a file system as is looked at, with these files of control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts + "\n")
    (root / "proc/self/cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_without_limits_it_is_the_machine(tmp_path: Path) -> None:
    found = node_resources(tmp_path)
    assert (found.cores, found.memory_bytes) == (CORES, MEMORY_BYTES)


def test_a_container_with_groups_of_version_2(tmp_path: Path) -> None:
    # As in Docker and Kubernetes, with a namespace of its own: its group is the top of what it sees.
    limits = {"cpu.max": "50000 100000", "memory.max": str(GIB // 4)}
    found = node_resources(system(tmp_path, V2_MOUNT.format(top="/"), "0::/", limits))
    assert (found.cores, found.memory_bytes) == (0.5, GIB // 4)


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    # As under systemd: the limit may be the slice's, above the service.
    limits = {
        "farm.slice/cpu.max": "75000 100000",
        "farm.slice/memory.max": str(GIB),
        "farm.slice/ray.service/cpu.max": "max 100000",
        "farm.slice/ray.service/memory.max": "max",
        "other.slice/cpu.max": "1000 100000",
    }
    found = node_resources(system(tmp_path, V2_MOUNT.format(top="/"), "0::/farm.slice/ray.service", limits))
    assert (found.cores, found.memory_bytes) == (0.75, min(GIB, MEMORY_BYTES))


@pytest.mark.parametrize("top", ["/", "/docker/0123"])
def test_a_container_with_groups_of_version_1(tmp_path: Path, top: str) -> None:
    # Without a namespace, the group's path is the host's, and so is the top of the mount.
    below = "docker/0123/" if top == "/" else ""
    limits = {
        f"cpu,cpuacct/{below}cpu.cfs_quota_us": "20000",
        f"cpu,cpuacct/{below}cpu.cfs_period_us": "100000",
        f"memory/{below}memory.limit_in_bytes": str(GIB // 2),
    }
    groups = "4:memory:/docker/0123\n2:cpu,cpuacct:/docker/0123\n0::/"
    found = node_resources(system(tmp_path, V1_MOUNTS.format(top=top), groups, limits))
    assert (found.cores, found.memory_bytes) == (0.2, GIB // 2)


def test_a_group_without_limits_is_the_machine(tmp_path: Path) -> None:
    limits = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    found = node_resources(system(tmp_path, V1_MOUNTS.format(top="/"), "4:memory:/\n2:cpu,cpuacct:/", limits))
    assert (found.cores, found.memory_bytes) == (CORES, MEMORY_BYTES)


def test_a_group_that_is_not_below_the_mount_is_looked_up_at_its_top(tmp_path: Path) -> None:
    # A process that was moved into a namespace sees its group as one outside.
    root = system(tmp_path, V2_MOUNT.format(top="/"), "0::/../../elsewhere", {"memory.max": str(GIB // 8)})
    assert node_resources(root).memory_bytes == GIB // 8


def test_this_machine_is_understood() -> None:
    found = node_resources()
    assert 0 < found.cores <= CORES
    assert 0 < found.memory_bytes <= MEMORY_BYTES
    assert oom_kills() >= 0


@pytest.mark.parametrize(
    ("cpus", "node_cpus", "cores", "threads"),
    [
        (2.0, 2.0, 2.0, 2),
        (0.6666, 2.0, 2.0, 1),  # three workers on two cores
        (1.0, 2.0, 2.0, 1),
        (32.0, 64.0, 64.0, 32),
        (32.0, 64.0, 8.0, 4),  # bound to eight of the cores, which Ray does not see
        (2.0, 4.0, 64.0, 2),  # Ray was told to use four of them
        (1.0, 1.0, 1.5, 1),
        (2.0, 2.0, 0.5, 1),
        (3.0, 9.0, 9.0, 3),
    ],
)
def test_threads(cpus: float, node_cpus: float, cores: float, threads: int) -> None:
    assert threads_of(cpus, node_cpus, cores) == threads


def test_kills_for_want_of_memory_are_counted(tmp_path: Path) -> None:
    events = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0"
    v2 = system(tmp_path / "v2", V2_MOUNT.format(top="/"), "0::/", {"memory.events": events})
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill 5"
    v1 = system(tmp_path / "v1", V1_MOUNTS.format(top="/"), "4:memory:/", {"memory/memory.oom_control": control})
    bare = tmp_path / "bare"
    (bare / "proc").mkdir(parents=True)
    (bare / "proc/vmstat").write_text("nr_free_pages 100\noom_kill 4\n")
    assert [oom_kills(root) for root in (v2, v1, bare, tmp_path)] == [3, 5, 4, 0]
