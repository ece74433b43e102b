"""What must never happen: accepted work that waits for ever, or one thing's trouble that stops the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.policy import Slot
from renderfarm.domain.render_settings import Device
from renderfarm.domain.states import TaskState, WorkerState
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import Farm
from renderfarm.services import admission, nodes, outputs, placement, retries, tasks
from tests.unit.services.story import BLENDER, Story


def _slot(worker_id: str, *, gpus: int = 0, blender: str = BLENDER) -> Slot:
    return Slot(worker_id=worker_id, free=True, blenders=frozenset({blender}), gpus=gpus, open_scene=None)


def _place(story: Story, *slots: Slot) -> list[str]:
    look = placement.place_units(story.farm, story.epoch, slots, {slot.worker_id: "node" for slot in slots})
    with story.farm.database.read() as tx:
        units = [tx.units.get(one.lease.unit_id) for one in look.placed]
    return [unit.task_id or "" for unit in units if unit is not None]


def test_what_no_free_worker_can_take_does_not_hide_what_it_can(story: Story) -> None:
    story.admitted(device=Device.GPU, frames="1-200")
    cpu = story.admitted(frames="1")
    busy_gpu = replace(_slot("g"), free=False, gpus=1)
    assert _place(story, _slot("c"), busy_gpu) == [cpu.id]


def test_where_ray_knows_no_gpu_the_session_is_to_find_out(story: Story) -> None:
    task = story.admitted(device=Device.GPU, frames="1")
    assert _place(story, _slot("c")) == [task.id]


def test_an_upgrade_of_blender_does_not_strand_a_task(story: Story) -> None:
    # T: planned for 4.5.15 --> all workers gone --> back with 4.5.16 --> placed
    task = story.admitted(frames="1-2")
    story.lead()
    assert nodes.available_blenders(story.farm) == ()
    story.worker(versions=("4.5.16",))
    placement.repin_units(story.farm, story.epoch)
    assert _place(story, _slot("w1", blender="4.5.16")) == [task.id]
    [told] = [entry.reason for entry in story.log(task.id) if entry.event == "task.blender"]
    assert "renders with 4.5.16" in told


def test_a_task_whose_blender_no_worker_has_says_so_once(story: Story) -> None:
    task = story.admitted(frames="1", blender="4.5")
    story.lead()
    story.worker(versions=("5.2.0",))
    placement.repin_units(story.farm, story.epoch)
    placement.repin_units(story.farm, story.epoch)
    [waiting] = [entry for entry in story.log(task.id) if entry.event == "task.waiting"]
    assert "no worker has" in waiting.reason


def test_a_new_scheduler_counts_on_no_worker_of_the_last_farm(story: Story) -> None:
    story.worker()
    story.lead()
    with story.farm.database.read() as tx:
        assert [worker.state for worker in tx.workers.all()] == [WorkerState.GONE]
    task = story.submit()
    story.admit()
    assert story.units(task.id) == []


def _failing(farm: Farm, *errors: Exception) -> Farm:
    """A farm whose next new ids are errors: admission fails in the middle."""
    failures = iter(errors)

    def new_id() -> str:
        for failure in failures:
            raise failure
        return farm.new_id()

    return replace(farm, new_id=new_id)


def test_what_could_not_be_admitted_now_is_delivered_again(story: Story) -> None:
    story.lead()
    story.worker()
    first, second = story.submit(frames="1"), story.submit(frames="1")
    admission.relay_outbox(story.farm, story.epoch)
    with pytest.raises(FarmUnavailable):
        admission.admit_queued(_failing(story.farm, FarmUnavailable("busy")), story.epoch)
    story.admit()
    assert [len(story.units(task.id)) for task in (first, second)] == [1, 1]


def test_a_mistake_of_ours_fails_one_task_and_not_the_others(story: Story) -> None:
    story.lead()
    story.worker()
    first, second = story.submit(frames="1"), story.submit(frames="1")
    admission.relay_outbox(story.farm, story.epoch)
    # Together, then each alone.
    admission.admit_queued(_failing(story.farm, *[ZeroDivisionError("oops")] * 2), story.epoch)
    failed = story.task(first.id)
    assert failed.state is TaskState.FAILED
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == (
        FailureKind.CRASH,
        "internal error: ZeroDivisionError: oops",
    )
    assert len(story.units(second.id)) == 1
    # A person may have it tried again.
    retries.retry_task(story.farm, LOCAL_OWNER, first.id, None)
    story.admit()
    assert len(story.units(first.id)) == 1


def test_a_cancelled_task_of_which_one_frame_is_retried_is_not_complete(story: Story) -> None:
    # T: cancelled > queued > running > cancelled
    task = story.admitted(frames="1-3")
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    retries.retry_task(story.farm, LOCAL_OWNER, task.id, "1")
    story.run_all()
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done) == (TaskState.CANCELLED, 1)


# --- outputs in the store ------------------------------------------------------------------------------------


def _render_one(story: Story, folder: Path, content: bytes) -> tuple[str, Path]:
    """Render a one-frame task whose file has this content; return the task and where its file is to appear."""
    task = story.admitted(frames="1")
    _commit_file(story, folder, content)
    return task.id, story.farm.settings.data / "objects" / "outputs" / task.id / "0001.png"


def _commit_file(story: Story, folder: Path, content: bytes) -> None:
    from renderfarm.domain.leases import RenderedFile
    from renderfarm.services import results

    source = folder / "0001.png"
    source.write_bytes(content)
    [lease] = story.place()
    file = RenderedFile(name="0001.png", digest=story.farm.objects.put(source), size_bytes=len(content))
    results.commit_frames(story.farm, [story.frame_commit(lease, 1, file)])


def test_a_retried_frames_old_picture_disappears_and_cannot_come_back(story: Story, tmp_path: Path) -> None:
    task_id, path = _render_one(story, tmp_path, b"old")
    old = story.outputs(task_id)
    outputs.publish_outputs(story.farm, old)
    assert path.read_bytes() == b"old"
    retries.retry_task(story.farm, LOCAL_OWNER, task_id, "1")
    assert not path.exists()
    outputs.publish_outputs(story.farm, old)  # a worker that was slow to publish
    assert not path.exists()
    _commit_file(story, tmp_path, b"new")
    outputs.publish_outputs(story.farm, story.outputs(task_id))
    outputs.publish_outputs(story.farm, old)
    assert path.read_bytes() == b"new"


def test_a_lost_blob_does_not_keep_other_outputs_from_appearing(story: Story, tmp_path: Path) -> None:
    lost = story.admitted(frames="1")
    [lease] = story.place()
    story.commit(lease)  # its digest is of no blob
    _, path = _render_one(story, tmp_path, b"good")
    outputs.publish_leftovers(story.farm, older_than_s=-1)
    assert path.read_bytes() == b"good"
    assert story.task(lost.id).state is TaskState.COMPLETED


# --- large tasks ---------------------------------------------------------------------------------------------


def test_steering_a_large_task_takes_few_statements(story: Story) -> None:
    """Set by set, not row by row: a cancel that takes as long as the task is large would not be one."""
    from sqlalchemy import event

    task = story.admitted(frames="1-3000")
    statements: list[str] = []
    engine = story.farm.database.engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    retries.retry_task(story.farm, LOCAL_OWNER, task.id, None)
    tasks.pause_task(story.farm, LOCAL_OWNER, task.id)
    tasks.resume_task(story.farm, LOCAL_OWNER, task.id)
    assert len(statements) < 50
    assert len([entry for entry in story.log(task.id) if entry.new == "cancelled"]) > 500
    assert story.task(task.id).units_open == 3000


def test_a_queue_that_is_away_keeps_nobody_waiting(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    # T: queued, in the outbox --> the queue is away --> admitted from the outbox --> the queue is back: nothing twice
    story.lead()
    story.worker()
    task = story.submit()

    def refuse(_messages: object) -> None:
        raise FarmUnavailable("no broker")

    with monkeypatch.context() as patch:
        patch.setattr(story.farm.queue, "publish", refuse)
        with pytest.raises(FarmUnavailable):
            admission.relay_outbox(story.farm, story.epoch)
        assert admission.admit_unsent(story.farm, story.epoch) == 1
    assert len(story.units(task.id)) == 3
    assert admission.admit_unsent(story.farm, story.epoch) == 0
    story.farm.queue.publish([("task", task.id)])  # it had taken the message after all
    story.admit()
    assert len(story.units(task.id)) == 3
