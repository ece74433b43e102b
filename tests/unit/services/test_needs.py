"""Memory as a resource, and devices on the record: from admission to the next attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Attempt, Task, UnitKind
from renderfarm.domain.needs import share_bytes
from renderfarm.domain.policy import Slot
from renderfarm.domain.render_settings import Device
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.services import failing, placement, results
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.story import BLENDER, REPORT, Clock, Story

GIB = 2**30
FACTS = scene_facts(memory_bytes=GIB)


def slots(story: Story, busy: tuple[str, ...] = (), **nodes_bytes: int) -> list[Slot]:
    """Have a worker on each of these nodes."""
    present = [
        replace(story.worker(name), node=name, memory_bytes=size_bytes) for name, size_bytes in nodes_bytes.items()
    ]
    placement.record_workers(story.farm, present)
    return [
        Slot(
            worker_id=worker.id,
            free=worker.id not in busy,
            blenders=frozenset({BLENDER}),
            gpus=0,
            open_scene=None,
            memory_bytes=share_bytes(worker.memory_bytes, 1),
        )
        for worker in present
    ]


def place(story: Story, workers: list[Slot]) -> list[Lease]:
    nodes = {slot.worker_id: slot.worker_id for slot in workers}
    return [placed.lease for placed in placement.place_units(story.farm, story.epoch, workers, nodes).placed]


def commit(story: Story, lease: Lease, frame: int, peak_bytes: int, devices: tuple[str, ...] = ()) -> None:
    file = RenderedFile(name=f"{frame:04d}.png", digest=f"{frame:064x}", size_bytes=7)
    report = AttemptReport(log_digest=None, peak_memory_bytes=peak_bytes, devices=devices)
    frame_commit = replace(story.frame_commit(lease, frame, file, 2.0), report=report, devices=devices)
    assert results.commit_frames(story.farm, [frame_commit]) != [None]


def attempts(story: Story, unit_id: str) -> list[Attempt]:
    with story.farm.database.read() as tx:
        return tx.attempts.of_unit(unit_id)


def needs(story: Story, task: Task) -> list[int]:
    return [unit.memory_bytes for unit in story.units(task.id)]


def reasons(story: Story, task: Task) -> list[str]:
    return [entry.reason for entry in story.log(task.id)]


# --- what is known at admission --------------------------------------------------------------------------------


def test_at_first_a_unit_needs_what_its_file_takes(story: Story) -> None:
    assert needs(story, story.admitted(story.asset(FACTS), frames="1-2")) == [GIB, GIB]


def test_the_next_task_needs_what_earlier_attempts_have_needed(story: Story) -> None:
    asset = story.asset(FACTS)
    story.admitted(asset, frames="1-3")
    for peak_bytes in (3 * GIB, 5 * GIB):
        [lease] = story.place()
        [frame] = story.begin(lease).frames
        commit(story, lease, frame, peak_bytes)
    assert needs(story, story.admitted(asset, frames="1")) == [5 * GIB]
    assert needs(story, story.admitted(story.asset(FACTS), frames="1")) == [GIB]


# --- where it goes -----------------------------------------------------------------------------------------------


def test_what_needs_much_waits_and_hides_nothing_from_a_worker_with_little(story: Story) -> None:
    heavy = story.admitted(story.asset(scene_facts(memory_bytes=30 * GIB)), priority=90, frames="1-600")
    light = story.admitted(story.asset(FACTS), frames="1")
    [lease] = place(story, slots(story, busy=("w2",), w1=8 * GIB, w2=64 * GIB))
    assert (lease.task_id, lease.worker_id) == (light.id, "w1")
    [lease] = place(story, slots(story, w1=8 * GIB, w2=64 * GIB))
    assert (lease.task_id, lease.worker_id) == (heavy.id, "w2")


def test_what_fits_nowhere_is_tried_where_there_is_most_and_the_log_says_so(story: Story) -> None:
    task = story.admitted(story.asset(scene_facts(memory_bytes=30 * GIB)), frames="1")
    [lease] = place(story, slots(story, w1=4 * GIB, w2=8 * GIB))
    assert lease.worker_id == "w2"
    assert "placed on w2, although it may need 23.0 GiB more than any worker has" in reasons(story, task)


def test_what_attempts_have_needed_counts_for_what_is_left(story: Story) -> None:
    task = story.admitted(story.asset(FACTS), frames="1-3")
    [lease] = story.place()
    for _ in range(2):
        placement.raise_needs(story.farm, story.epoch, task.id, 9 * GIB)
    placement.raise_needs(story.farm, story.epoch, task.id, 2 * GIB)
    assert needs(story, task) == [GIB, 9 * GIB, 9 * GIB], "the first runs already"
    assert reasons(story, task).count("its frames need 9.0 GiB, which not every worker has") == 1
    [second] = place(story, slots(story, w2=8 * GIB, w3=64 * GIB))
    assert second.worker_id == "w3"
    story.commit(lease)


# --- want of memory ----------------------------------------------------------------------------------------------


def fail_for_memory(story: Story, lease: Lease, peak_bytes: int | None = None) -> None:
    failure = Failure(kind=FailureKind.OUT_OF_MEMORY, message="Malloc returns null")
    failing.fail(story.farm, lease, failure, replace(REPORT, peak_memory_bytes=peak_bytes))


def test_want_of_memory_sends_it_where_there_is_more(story: Story, clock: Clock) -> None:
    # T: running on w1 > ready > waits for w3, although w2 is free and has not tried it > running on w3 > succeeded
    task = story.admitted(story.asset(FACTS), frames="1")
    workers = slots(story, busy=("w2", "w3"), w1=8 * GIB, w2=8 * GIB, w3=64 * GIB)
    [lease] = place(story, workers)
    fail_for_memory(story, lease, 7 * GIB)
    clock.pass_(60)
    assert place(story, slots(story, busy=("w3",), w1=8 * GIB, w2=8 * GIB, w3=64 * GIB)) == []
    [again] = place(story, slots(story, w1=8 * GIB, w2=8 * GIB, w3=64 * GIB))
    assert again.worker_id == "w3"
    story.commit(again)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_where_nobody_has_more_the_failure_says_so(story: Story, clock: Clock) -> None:
    task = story.admitted(story.asset(FACTS), frames="1")
    for worker_id in ("w1", "w2", "w1"):  # another that has as much may do, and at last the first again
        [lease] = place(story, slots(story, w1=8 * GIB, w2=8 * GIB))
        assert lease.worker_id == worker_id
        fail_for_memory(story, lease)
        clock.pass_(120)
    [unit] = story.units(task.id)
    assert unit.state is UnitState.FAILED
    assert unit.failure is not None
    assert unit.failure.message == "Malloc returns null; no worker has more memory than the 7.0 GiB of w1"


def test_what_was_learnt_survives_a_retry(story: Story, clock: Clock) -> None:
    task = story.admitted(story.asset(FACTS), frames="1")
    [lease] = place(story, slots(story, w1=8 * GIB))
    fail_for_memory(story, lease)
    clock.pass_(60)
    story.lead()  # another scheduler, which knows nothing but the database
    assert place(story, slots(story, busy=("w2",), w1=8 * GIB, w2=64 * GIB)) == []
    assert needs(story, task) == [share_bytes(8 * GIB, 1) + 1]


# --- devices -----------------------------------------------------------------------------------------------------


def test_devices_are_on_the_record(story: Story) -> None:
    task = story.admitted(frames="1", device=Device.GPU)
    [lease] = story.place()
    [attempt] = attempts(story, lease.unit_id)
    assert attempt.devices is None
    commit(story, lease, 1, GIB, ("OPTIX: NVIDIA H200", "OPTIX: NVIDIA L4"))
    [attempt] = attempts(story, lease.unit_id)
    assert attempt.devices == ("OPTIX: NVIDIA H200", "OPTIX: NVIDIA L4")
    assert "frame 1 in 2.00 s of rendering on OPTIX: NVIDIA H200, OPTIX: NVIDIA L4" in reasons(story, task)


def test_an_attempt_that_fails_says_where_it_rendered(story: Story) -> None:
    story.admitted(frames="1")
    [lease] = story.place()
    failure = Failure(kind=FailureKind.DEVICE, message="a GPU was asked for")
    failing.fail(story.farm, lease, failure, replace(REPORT, devices=("CPU: AMD EPYC",)))
    [attempt] = attempts(story, lease.unit_id)
    assert (attempt.devices, attempt.failure) == (("CPU: AMD EPYC",), failure)


@pytest.mark.parametrize("wants_gpu", [True, False])
def test_a_file_that_asks_for_a_gpu_goes_where_one_is(story: Story, wants_gpu: bool) -> None:
    task = story.admitted(story.asset(scene_facts(scene_info(wants_gpu=wants_gpu))), frames="1")
    assert [(unit.kind, unit.needs_gpu) for unit in story.units(task.id)] == [(UnitKind.RENDER, wants_gpu)]
    # Where no GPU is known, any worker will do.
    assert len(story.place()) == 1
