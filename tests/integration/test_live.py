"""What can be seen while a frame renders: through Serve, from the worker that renders it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.farm_process import FarmProcess


def test_blenders_output_is_read_while_it_renders(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["endless"], frames="1", split="none")
    [unit] = farm.client.list_units(task_id)["items"] or farm.until(
        lambda: farm.client.list_units(task_id)["items"], "the unit"
    )

    def output() -> bytes:
        return farm.client.read_unit_log(task_id, unit["id"]).data

    farm.until(lambda: b"Fra:1" in output(), "Blender's words on frame 1")
    whole = farm.client.read_unit_log(task_id, unit["id"])
    assert (whole.attempt, whole.offset, whole.complete) == (1, 0, False)
    piece = farm.client.read_unit_log(task_id, unit["id"], offset=5, limit=10)
    assert (piece.data, piece.next_offset) == (whole.data[5:15], 15)
    tail = farm.client.read_unit_log(task_id, unit["id"], tail=20)
    assert len(tail.data) == 20
    assert tail.offset >= len(whole.data) - 20
    farm.client.cancel_task(task_id)
    # What Blender said before it was killed is kept.
    farm.until(lambda: farm.client.read_unit_log(task_id, unit["id"]).complete, "the stored log")
    assert output().startswith(whole.data)


def test_events_come_as_they_happen_and_end_with_the_task(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["quick"], frames="1-2")
    events = list(farm.client.events(task_id))
    assert [event.event for event in events].count("frame.committed") == 2
    assert events[-1].event == "task.state"
    assert farm.client.get_status(task_id)["status"] == "completed"
    resumed = list(farm.client.events(task_id, last_event_id=events[-3].id))
    assert [event.id for event in resumed] == [event.id for event in events[-2:]]


def test_attempts_tell_blender_and_its_memory(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["quick"], frames="1")
    farm.finish(task_id)
    [unit] = farm.client.list_units(task_id)["items"]
    [attempt] = farm.client.get_unit(task_id, unit["id"])["attempts"]
    assert attempt["status"] == "succeeded"
    assert attempt["blender_version"].count(".") == 2
    assert attempt["peak_memory_bytes"] > 50 << 20


def test_no_process_of_the_farm_interrupts_a_blender(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    assert farm.finish(farm.submit(scenes["quick"]))["status"] == "completed"
    ours = {
        name: farm.processes(name)[0]
        for name in ("raylet/raylet ", "gcs_server", "ray::Scheduler", "ray::Worker", "ray::ServeReplica", "session.py")
    }
    policies = {name: os.sched_getscheduler(process.pid) for name, process in ours.items()}
    assert policies == dict.fromkeys(ours, os.SCHED_BATCH)
