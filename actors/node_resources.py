"""The cores and the memory that this process may use: the machine's, or less in a container.

Ray looks at the top of the control groups only, which is right in most containers, and not at the processors to which
this process is bound. See cgroups(7), cgroup v2's cpu.max and memory.max in the kernel's Documentation/admin-guide/
cgroup-v2.rst, and proc(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_ROOT = Path("/")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class NodeResources:
    """What there is for all workers on this node."""

    cores: float
    memory_bytes: int


def node_resources(root: Path = _ROOT) -> NodeResources:
    """Look at the limits of this process and of all control groups that it is in.

    Args:
        root: of the file system in which they are looked up.
    """
    return NodeResources(
        cores=min([float(_own_cores()), *_core_limits(root)]),
        memory_bytes=min([psutil.virtual_memory().total, *_memory_limits(root)]),
    )


def threads_of(cpus: float, node_cpus: float, cores: float) -> int:
    """Return the threads that a worker renders with: at least one, and no more than its part of the cores.

    Args:
        cpus: what Ray has given to the worker.
        node_cpus: what Ray counts on that node.
        cores: what processes on it may use.
    """
    part = min(cpus, cores * cpus / node_cpus) if node_cpus else cpus
    return max(1, int(part + 1e-6))


def oom_kills(root: Path = _ROOT) -> int:
    """Return how many processes the kernel has killed for want of memory: of this control group, else at all."""
    return _oom_kills(_oom_counter(root)) or 0


@cache
def _oom_counter(root: Path) -> Path:
    """Return the file that counts: of the group of this process, of one around it, or of the machine."""
    files = (group / name for group in _groups(root, "memory") for name in ("memory.events", "memory.oom_control"))
    return next((file for file in files if _oom_kills(file) is not None), root / "proc/vmstat")


def _oom_kills(file: Path) -> int | None:
    """Return what a file counts, None if it does not. The machine's has 200 lines, and is read for each unit."""
    found = _OOM_KILLS.search(_text(file))
    return None if found is None else int(found[1])


def _own_cores() -> int:
    # Not every system binds processes to processors.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _core_limits(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        quota = quota or _text(group / "cpu.cfs_quota_us")
        period = period or _text(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():  # "max" and -1 are no limits
            yield int(quota) / int(period)


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _groups(root, "memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(group / file)
            if limit.isdecimal():
                yield int(limit)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, from its own to the outermost it can see."""
    own = dict(_own_groups(root))
    for mount in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = mount.partition(" - ")
        kind, _, options = after.split(" ", 2)
        is_v1 = kind == "cgroup" and controller in options.split(",")
        path = own.get(controller if is_v1 else "") if is_v1 or kind == "cgroup2" else None
        if path is None:
            continue
        top, point = before.split(" ")[3:5]
        # In a container, the mount begins at the container's own group, or the group's path does.
        below = Path(path[len(top) :] if path.startswith(top) else "").parts
        inside = [part for part in below if part != "/"] if ".." not in below else []
        outermost = root / point.lstrip("/")
        yield from (outermost.joinpath(*inside[:depth]) for depth in range(len(inside), -1, -1))


def _own_groups(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each controller, "" for version 2, and the path of this process's group in it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _text(file: Path) -> str:
    """Return what a file says, nothing where it is not there or says nothing to us."""
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
