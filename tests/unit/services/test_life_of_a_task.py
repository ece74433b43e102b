"""A task's way from submission to its end, and every turn it can take."""

from __future__ import annotations

from typing import Any

import pytest

from renderfarm.auth import LOCAL_OWNER, Permission, Principal
from renderfarm.domain.facts import MissingFile
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.states import AssetState, TaskState, UnitState
from renderfarm.errors import (
    AssetNotReady,
    Conflict,
    Forbidden,
    IllegalTransition,
    InvalidFrames,
    InvalidInput,
    InvalidSettings,
    MissingFiles,
    NotFound,
)
from renderfarm.services import progress, retries, tasks
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.story import Clock, Story


def test_every_frame_is_rendered_and_the_task_completes(story: Story) -> None:
    task = story.admitted()
    assert (task.state, task.units_total, task.frames_total) == (TaskState.QUEUED, 3, 3)
    [lease] = story.place()
    assert story.task(task.id).state is TaskState.RUNNING
    story.commit(lease)
    story.run_all()
    done = story.task(task.id)
    assert (done.state, done.frames_done, done.units_open, done.render_seconds) == (TaskState.COMPLETED, 3, 0, 6.0)
    assert [output.name for output in story.outputs(task.id)] == ["0001.png", "0002.png", "0003.png"]


def test_the_log_tells_every_step_with_reason_and_actor(story: Story) -> None:
    task = story.admitted(frames="7")
    story.run_all()
    told = [(entry.event, entry.old, entry.new, entry.actor) for entry in story.log(task.id)]
    assert told == [
        ("task.submitted", None, None, "user:local"),
        ("task.state", "queued", "running", "scheduler"),
        ("unit.state", "ready", "running", "scheduler"),
        ("frame.committed", None, "0007.png", "worker:w1"),
        ("unit.state", "running", "succeeded", "worker:w1"),
        ("task.state", "running", "completed", "worker:w1"),
    ]
    assert all(entry.reason for entry in story.log(task.id))


def test_a_message_that_comes_twice_is_admitted_once(story: Story) -> None:
    task = story.admitted()
    story.farm.queue.publish([("task", task.id), ("task", task.id)])
    story.admit()
    assert len(story.units(task.id)) == 3


def test_a_submission_survives_until_a_worker_is_there(story: Story) -> None:
    # T: queued, no worker --> the message stays --> worker --> admitted
    story.lead()
    task = story.submit()
    story.admit()
    assert story.units(task.id) == []
    story.worker()
    story.admit()
    assert len(story.units(task.id)) == 3


def test_what_the_scheduler_took_and_did_not_acknowledge_comes_back(story: Story) -> None:
    from renderfarm.queue import TableQueue

    story.farm.queue.publish([("task", "x")])
    engine = story.farm.database.engine  # type: ignore[attr-defined]
    first = TableQueue(engine)
    [delivery] = first.take(10)
    assert first.take(10) == []
    assert [again.key for again in TableQueue(engine).take(10)] == [delivery.key]


def test_several_cameras_have_folders_of_their_own(story: Story) -> None:
    asset = story.asset(scene_facts(scene_info(cameras=("Front", "Side/Top"), camera="Front")))
    task = story.admitted(asset, camera="all", frames="1")
    story.run_all()
    assert [output.name for output in story.outputs(task.id)] == ["Front/0001.png", "Side_Top/0001.png"]


def test_higher_priority_goes_first_then_who_came_first(story: Story) -> None:
    early = story.admitted(frames="1")
    late = story.admitted(frames="1")
    urgent = story.admitted(frames="1", priority=90)
    order = []
    while leases := story.place():
        order += [story.commit(lease)[0].task_id for lease in leases]
    assert order == [urgent.id, early.id, late.id]


# --- refusals at the door ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"camera": "Camra"}, InvalidSettings, "did you mean Camera"),
        ({"scene": "Nope"}, InvalidSettings, "no scene named 'Nope'"),
        ({"view_layer": "Nope"}, InvalidSettings, "no view layer named 'Nope'"),
        ({"blender": "9.9"}, InvalidSettings, "no Blender 9.9"),
    ],
)
def test_settings_that_the_scene_cannot_satisfy(
    story: Story, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    story.worker()
    with pytest.raises(error, match=text):
        story.submit(**settings)


def test_no_camera(story: Story) -> None:
    with pytest.raises(InvalidSettings, match="has no camera"):
        story.submit(story.asset(scene_facts(scene_info(cameras=(), camera=None))))


def test_missing_files_are_refused_unless_allowed(story: Story) -> None:
    missing = MissingFile(path="//wood.png", used_by='Image "wood"')
    asset = story.asset(scene_facts(missing_files=(missing,)))
    with pytest.raises(MissingFiles, match=r"wood\.png"):
        story.submit(asset)
    assert story.submit(asset, allow_missing=True).state is TaskState.QUEUED


def test_a_pending_asset_cannot_be_rendered_yet(story: Story) -> None:
    with pytest.raises(AssetNotReady):
        story.submit(story.asset(state=AssetState.PENDING))


def test_priority_out_of_range(story: Story) -> None:
    with pytest.raises(InvalidInput, match="priority"):
        story.submit(priority=101)


def test_unknown_task(story: Story) -> None:
    for act in (tasks.get_task, tasks.cancel_task, tasks.pause_task, tasks.resume_task, progress.get_status):
        with pytest.raises(NotFound):
            act(story.farm, LOCAL_OWNER, "nope")


def test_a_principal_without_the_permission_is_refused(story: Story) -> None:
    task = story.submit()
    viewer = Principal(name="eve", permissions=frozenset({Permission.TASK_READ}), projects=frozenset({"default"}))
    assert tasks.get_task(story.farm, viewer, task.id).id == task.id
    with pytest.raises(Forbidden):
        tasks.cancel_task(story.farm, viewer, task.id)
    stranger = Principal(name="mallory", permissions=frozenset(Permission), projects=frozenset({"other"}))
    with pytest.raises(Forbidden):
        tasks.get_task(story.farm, stranger, task.id)


# --- steering ------------------------------------------------------------------------------------------------


def test_cancel_ends_the_task_and_fences_off_what_still_runs(story: Story) -> None:
    # T: running > cancelled --> units: running, ready, ready > cancelled
    task = story.admitted()
    [lease] = story.place()
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    assert story.task(task.id).state is TaskState.CANCELLED
    assert {unit.state for unit in story.units(task.id)} == {UnitState.CANCELLED}
    from renderfarm.errors import LeaseLost

    with pytest.raises(LeaseLost):
        story.commit(lease)
    assert story.outputs(task.id) == []
    assert story.place() == []
    with pytest.raises(IllegalTransition):
        tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)


def test_pause_lets_running_frames_finish_and_starts_no_other(story: Story) -> None:
    task = story.admitted()
    [lease] = story.place()
    tasks.pause_task(story.farm, LOCAL_OWNER, task.id)
    story.commit(lease)
    assert story.place() == []
    assert (story.task(task.id).state, story.task(task.id).frames_done) == (TaskState.PAUSED, 1)
    tasks.resume_task(story.farm, LOCAL_OWNER, task.id)
    story.run_all()
    assert story.task(task.id).state is TaskState.COMPLETED


def test_a_task_paused_before_it_was_admitted_stays_paused(story: Story) -> None:
    story.lead()
    story.worker()
    task = story.submit()
    tasks.pause_task(story.farm, LOCAL_OWNER, task.id)
    story.admit()
    assert story.place() == []
    assert tasks.resume_task(story.farm, LOCAL_OWNER, task.id).state is TaskState.QUEUED
    story.run_all()
    assert story.task(task.id).state is TaskState.COMPLETED


def test_what_was_cancelled_before_it_began_is_not_resumed(story: Story) -> None:
    # T: cancelled > queued by a retry only, as a resumed task would wait for units that stay cancelled
    task = story.admitted(frames="1-2")
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    with pytest.raises(IllegalTransition, match="it is cancelled and cannot become running"):
        tasks.resume_task(story.farm, LOCAL_OWNER, task.id)
    assert story.task(task.id).state is TaskState.CANCELLED
    assert retries.retry_task(story.farm, LOCAL_OWNER, task.id, None).state is TaskState.QUEUED


def test_a_paused_task_ends_when_its_last_running_frame_does(story: Story) -> None:
    # T: running > paused > completed
    task = story.admitted(frames="1")
    [lease] = story.place()
    tasks.pause_task(story.farm, LOCAL_OWNER, task.id)
    story.commit(lease)
    assert story.task(task.id).state is TaskState.COMPLETED


# --- retries by people ---------------------------------------------------------------------------------------


def _failed_task(story: Story) -> str:
    task = story.admitted(frames="1-2")
    first, second = story.place("w1", "w2")
    story.commit(first)
    story.fail(second, FailureKind.SCRIPT_ERROR)
    assert story.task(task.id).state is TaskState.FAILED
    return task.id


def test_a_retry_renders_only_what_failed(story: Story) -> None:
    # T: failed > queued > running > completed
    task_id = _failed_task(story)
    assert story.task(task_id).failure is not None
    task = retries.retry_task(story.farm, LOCAL_OWNER, task_id, None)
    assert (task.state, task.units_open, task.units_failed, task.failure) == (TaskState.QUEUED, 1, 0, None)
    [lease] = story.place("w1", "w2")
    assert lease.attempt == 2
    story.commit(lease)
    done = story.task(task_id)
    assert (done.state, done.frames_done, len(story.outputs(task_id))) == (TaskState.COMPLETED, 2, 2)


def test_named_frames_are_rendered_again_although_they_succeeded(story: Story) -> None:
    task = story.admitted(frames="1-3")
    story.run_all()
    again = retries.retry_task(story.farm, LOCAL_OWNER, task.id, "2")
    assert (again.state, again.frames_done, again.units_open) == (TaskState.QUEUED, 2, 1)
    story.run_all()
    assert (story.task(task.id).state, story.task(task.id).frames_done) == (TaskState.COMPLETED, 3)
    assert [output.attempt for output in story.outputs(task.id)] == [1, 2, 1]


def test_a_cancelled_task_can_be_taken_up_again(story: Story) -> None:
    task = story.admitted(frames="1-2")
    [lease] = story.place()
    story.commit(lease)
    tasks.pause_task(story.farm, LOCAL_OWNER, task.id)
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    retries.retry_task(story.farm, LOCAL_OWNER, task.id, None)
    story.run_all()
    done = story.task(task.id)
    assert (done.state, done.frames_done, len(story.outputs(task.id))) == (TaskState.COMPLETED, 2, 2)


def test_a_task_cancelled_before_it_was_admitted_is_planned_on_retry(story: Story) -> None:
    story.lead()
    story.worker()
    task = story.submit(frames="1")
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    story.admit()
    assert story.units(task.id) == []
    retries.retry_task(story.farm, LOCAL_OWNER, task.id, None)
    story.admit()
    story.run_all()
    assert story.task(task.id).state is TaskState.COMPLETED


def test_nothing_to_retry(story: Story) -> None:
    task = story.admitted(frames="1")
    with pytest.raises(Conflict, match="nothing to retry"):
        retries.retry_task(story.farm, LOCAL_OWNER, task.id, None)
    with pytest.raises(InvalidFrames, match="not of this task"):
        retries.retry_task(story.farm, LOCAL_OWNER, task.id, "99")


# --- progress ------------------------------------------------------------------------------------------------


def test_status_counts_frames_in_work_and_foretells_the_end(story: Story, clock: Clock) -> None:

    task = story.admitted(frames="1-4")
    first, second = story.place("w1", "w2")
    story.commit(first)
    clock.pass_(6.0)
    story.renew(second, 0.5, "Sample 8/16")
    status = progress.get_status(story.farm, LOCAL_OWNER, task.id)
    assert (status.status, status.progress, status.frames_done, status.frames_total) == (TaskState.RUNNING, 37.5, 1, 4)
    assert status.eta_s == 5.0  # two and a half frames of two seconds, on one worker
    assert story.units(task.id)[1].progress_note == "Sample 8/16"


def test_the_script_of_a_unit_is_there_before_it_runs(story: Story) -> None:
    task = story.admitted(frames="5")
    [unit] = story.units(task.id)
    assert "shot.blend" in progress.unit_script_of(story.farm, LOCAL_OWNER, task.id, unit.id)
