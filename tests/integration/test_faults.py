"""Killing things at the worst moment: every frame is there once, and the log tells what happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from tests.integration.farm_process import FarmProcess

SLOW_NAMES = [f"shot_{frame:04d}.png" for frame in range(1, 7)]
#: Units and commits are counted here, and how fast the machine is must not decide whether the last frame is shared.
WHOLE = {"split": "none"}


def _rendering(farm: FarmProcess, task_id: str, units: int = 1) -> list[psutil.Process]:
    """Wait until Blender is at work on so many units of the task and return the Blender processes."""

    def sampling() -> bool:
        return sum("Sample" in unit["progress_note"] for unit in _running(farm, task_id)) >= units

    farm.until(sampling, "samples")
    return farm.blenders()


def _running(farm: FarmProcess, task_id: str) -> list[dict[str, Any]]:
    units: list[dict[str, Any]] = farm.client.list_units(task_id, status=["running"])["items"]
    return units


def _blenders_of(farm: FarmProcess, task_id: str) -> list[psutil.Process]:
    """Return the Blender processes that render the task."""
    workers = {
        worker["pid"] for node in farm.client.list_nodes() for worker in node["workers"] if worker["task_id"] == task_id
    }
    return [blender for blender in farm.blenders() if blender.ppid() in workers]


def _is_dead(process: psutil.Process) -> bool:
    """Tell whether it has ended; that nobody has asked for its status yet (a zombie) is its new parent's business."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _reasons(farm: FarmProcess, task_id: str) -> str:
    return "\n".join(
        f"{entry['event']} {entry['old']} > {entry['new']}: {entry['reason']}" for entry in farm.log(task_id)
    )


def test_blender_is_killed_mid_frame(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    # T: running > ready (crash, retry) > running > succeeded
    task_id = farm.submit(scenes["slow"], **WHOLE)
    for blender in _rendering(farm, task_id):
        blender.kill()
    assert farm.finish(task_id)["status"] == "completed"
    farm.assert_every_frame_once(task_id, SLOW_NAMES)
    assert "crash: Blender" in _reasons(farm, task_id)
    assert "retry in" in _reasons(farm, task_id)


def test_a_worker_is_killed_mid_frame(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    # T: running > ready (lost, free of charge) > running > succeeded; Blender dies with its worker
    task_id = farm.submit(scenes["slow"], **WHOLE)
    _rendering(farm, task_id)
    [worker, *_] = farm.processes("ray::WorkerActor")
    blenders = [child for child in worker.children(recursive=True) if child in farm.blenders()]
    worker.kill()
    assert farm.finish(task_id)["status"] == "completed"
    assert blenders
    assert not psutil.wait_procs(blenders, timeout=5)[1]
    farm.assert_every_frame_once(task_id, SLOW_NAMES)
    assert "lost: " in _reasons(farm, task_id)
    farm.until(lambda: len(farm.processes("ray::WorkerActor")) == 2, "the worker's successor")


def test_a_worker_that_wakes_up_late_is_told_to_throw_its_result_away(
    farm: FarmProcess, scenes: dict[str, Path]
) -> None:
    # T: running > ready (lease expired) > running elsewhere > succeeded; the first worker's frame comes too late
    task_id = farm.submit(scenes["slow"], frames="1-2", **WHOLE)
    _rendering(farm, task_id, units=2)
    [sleeper, _] = farm.processes("ray::WorkerActor")
    sleeper.suspend()
    try:
        # Its Blender goes on, and leaves the frame in the worker's folder.
        farm.until(lambda: "lost: " in _reasons(farm, task_id), "the end of the sleeper's lease")
        assert farm.finish(task_id)["status"] == "completed"
    finally:
        sleeper.resume()
    farm.until(lambda: not list((farm.data / "work").glob("*/*-*")), "the late attempt's files to go")
    farm.assert_every_frame_once(task_id, SLOW_NAMES[:2])
    # What it has put into the store before it was refused is the same picture as the other worker's, or is swept later.
    assert farm.client.check_farm()["findings"] == []


def test_the_scheduler_is_killed_mid_task(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    # The workers go on; the new scheduler adopts them, and no attempt is repeated.
    task_id = farm.submit(scenes["slow"], **WHOLE)
    _rendering(farm, task_id)
    [scheduler] = farm.processes("ray::SchedulerActor")
    scheduler.kill()
    assert farm.finish(task_id)["status"] == "completed"
    farm.assert_every_frame_once(task_id, SLOW_NAMES)
    units = farm.client.list_units(task_id)["items"]
    assert [unit["attempt"] for unit in units] == [1] * 6
    farm.until(lambda: farm.client.check_ready()["status"] == "ready", "the scheduler's successor")


def test_blender_hangs(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    # T: running > ready (timeout) > running > succeeded
    task_id = farm.submit(scenes["slow"], frames="1", split="none", no_progress_timeout_s=12.0)
    _rendering(farm, task_id)
    [blender] = farm.until(lambda: _blenders_of(farm, task_id), "word of who renders it")
    blender.send_signal(signal.SIGSTOP)
    assert farm.finish(task_id)["status"] == "completed"
    assert "timeout: " in _reasons(farm, task_id)


def test_a_frame_takes_longer_than_it_may(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["endless"], frames="1", split="none", frame_timeout_s=1.5)
    status = farm.finish(task_id)
    assert (status["status"], status["error"]["kind"]) == ("failed", "timeout")
    [unit] = farm.client.list_units(task_id)["items"]
    attempts = farm.client.get_unit(task_id, unit["id"])["attempts"]
    assert len(attempts) == 2
    assert attempts[0]["worker_id"] != attempts[1]["worker_id"]


def test_cancel_kills_the_render_within_two_seconds(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["endless"])
    _rendering(farm, task_id, units=2)
    blenders = _blenders_of(farm, task_id)
    started = time.monotonic()
    farm.client.cancel_task(task_id)
    _, alive = psutil.wait_procs(blenders, timeout=2)
    assert not alive, f"Blender still runs {time.monotonic() - started:.1f} s after the cancel"
    assert farm.client.get_status(task_id)["status"] == "cancelled"
    # The workers take the next task at once.
    quick = farm.submit(scenes["quick"], frames="1")
    assert farm.finish(quick)["status"] == "completed"


def test_pause_lets_running_frames_finish(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["slow"], **WHOLE)
    _rendering(farm, task_id)
    farm.client.pause_task(task_id)
    farm.until(lambda: not farm.client.list_units(task_id, status=["running"])["items"], "the running frames' end")
    paused = farm.client.get_status(task_id)
    assert paused["status"] == "paused"
    assert 1 <= paused["frames_done"] < 6
    farm.client.resume_task(task_id)
    assert farm.finish(task_id)["status"] == "completed"
    farm.assert_every_frame_once(task_id, SLOW_NAMES)


def test_the_whole_farm_is_killed_and_started_again(tmp_path: Path, scenes: dict[str, Path]) -> None:
    first = FarmProcess(tmp_path / "farm", workers="1", lease_s="4", heartbeat_s="0.3")
    task_id = first.submit(scenes["slow"], **WHOLE)
    first.until(lambda: first.client.get_status(task_id)["frames_done"] >= 1, "a committed frame")
    below = psutil.Process(first.process.pid).children(recursive=True)
    assert first.blenders()
    os.kill(first.process.pid, signal.SIGKILL)
    first.stop()
    # Ray's two agents try to reach its dead control store for up to a minute before they end; all else goes at once.
    _, orphans = psutil.wait_procs(below, timeout=10)
    assert {orphan.name() for orphan in orphans} <= {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    second = FarmProcess(tmp_path / "farm", workers="1", lease_s="4", heartbeat_s="0.3")
    try:
        assert second.finish(task_id)["status"] == "completed"
        second.assert_every_frame_once(task_id, SLOW_NAMES)
    finally:
        below = psutil.Process(second.process.pid).children(recursive=True)
        second.stop()
    _, left = psutil.wait_procs(below, timeout=1)
    assert not [process for process in left if not _is_dead(process)], "a clean stop leaves no process"
