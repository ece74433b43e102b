"""What waits for others, when those are undone, retried or failed: every task ends, with its pictures and movie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease, RenderedFile
from renderfarm.domain.models import OutputRole, Task, Unit, UnitKind
from renderfarm.domain.movies import MovieFormat
from renderfarm.domain.policy import Slot
from renderfarm.domain.states import TaskState, UnitState, WorkerState
from renderfarm.errors import InvalidSettings, LeaseLost
from renderfarm.services import movies, placement, tasks
from renderfarm.services.retries import retry_task
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.story import REPORT, Story

SPLITTABLE = scene_facts(scene_info(split_obstacles=()))


def of_kind(story: Story, task: Task, kind: UnitKind) -> Unit:
    [unit] = [unit for unit in story.units(task.id) if unit.kind is kind]
    return unit


def render(story: Story, count: int) -> None:
    for _ in range(count):
        [lease] = story.place()
        story.commit(lease)


def make_movie(story: Story, lease: Lease) -> None:
    frames = movies.frames_of(story.farm, story.begin(lease).unit)
    file = RenderedFile(name=movies.movie_name(frames, MovieFormat.H264), digest="f" * 64, size_bytes=9)
    movies.commit_movie(story.farm, lease, frames, file, REPORT)


def run(story: Story) -> None:
    """Do everything that there is to do."""
    while leases := story.place():
        for lease in leases:
            if story.begin(lease).unit.kind is UnitKind.ENCODE:
                make_movie(story, lease)
            else:
                story.commit(lease)


def fail(story: Story, count: int) -> None:
    for _ in range(count):
        [lease] = story.place()
        story.fail(lease, FailureKind.SCRIPT_ERROR)


def roles(story: Story, task: Task) -> list[OutputRole]:
    with story.farm.database.read() as tx:
        outputs = tx.outputs.of_units([unit.id for unit in story.units(task.id)])
    return sorted(output.role for output in outputs)


def test_a_retry_of_one_failed_frame_leaves_the_movie_to_the_last(story: Story) -> None:
    # T: encode cancelled > cancelled (another frame is missing) > ready > blocked > succeeded
    task = story.admitted(frames="1-3", movie=MovieFormat.H264)
    fail(story, 2)
    run(story)
    failed = [unit.frames[0] for unit in story.units(task.id) if unit.state is UnitState.FAILED]
    retry_task(story.farm, LOCAL_OWNER, task.id, str(failed[0]))
    run(story)
    assert (story.task(task.id).state, story.task(task.id).units_open) == (TaskState.FAILED, 0)
    retry_task(story.farm, LOCAL_OWNER, task.id, str(failed[1]))
    run(story)
    assert story.task(task.id).state is TaskState.COMPLETED
    assert OutputRole.MOVIE in roles(story, task)


def test_a_retry_of_one_frame_of_a_cancelled_task_ends(story: Story) -> None:
    task = story.admitted(frames="1-3", movie=MovieFormat.H264)
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    retry_task(story.farm, LOCAL_OWNER, task.id, "2")
    run(story)
    assert (story.task(task.id).state, story.task(task.id).frames_done) == (TaskState.CANCELLED, 1)


def test_a_retry_while_the_movie_is_made_makes_another(story: Story) -> None:
    # T: encode running > ready > blocked > ready > running > succeeded
    task = story.admitted(frames="1-3", movie=MovieFormat.H264)
    render(story, 3)
    [lease] = story.place()
    retry_task(story.farm, LOCAL_OWNER, task.id, "2")
    assert of_kind(story, task, UnitKind.ENCODE).state is UnitState.BLOCKED
    with pytest.raises(LeaseLost):
        make_movie(story, lease)
    run(story)
    assert story.task(task.id).state is TaskState.COMPLETED
    assert roles(story, task) == [OutputRole.MOVIE, *[OutputRole.PICTURE] * 3]


def test_a_retry_while_a_frame_is_merged_renders_its_parts_and_merges_them(story: Story) -> None:
    # T: merge running > ready > blocked > ready > running > succeeded
    task = story.admitted(story.asset(SPLITTABLE), frames="1", split="tiles:4")
    render(story, 4)
    [lease] = story.place()
    retry_task(story.farm, LOCAL_OWNER, task.id, "1")
    assert (of_kind(story, task, UnitKind.MERGE).state, story.task(task.id).parts_done) == (UnitState.BLOCKED, 0.0)
    with pytest.raises(LeaseLost):
        story.commit(lease)
    run(story)
    ended = story.task(task.id)
    assert (ended.state, ended.parts_done, roles(story, task)) == (TaskState.COMPLETED, 0.0, [OutputRole.PICTURE])


def test_render_time_is_that_of_what_is_there(story: Story) -> None:
    task = story.admitted(story.asset(SPLITTABLE), frames="1", split="tiles:4")
    run(story)
    once = story.task(task.id).render_seconds
    retry_task(story.farm, LOCAL_OWNER, task.id, "1")
    assert story.task(task.id).render_seconds == 0.0
    run(story)
    assert story.task(task.id).render_seconds == once == 10.0


def test_what_waits_goes_to_another_blender_with_the_rest(story: Story) -> None:
    task = story.admitted(story.asset(SPLITTABLE), frames="1", split="tiles:2")
    placement.record_workers(story.farm, [replace(story.worker("w1"), state=WorkerState.GONE)])
    story.worker("w2", ("4.5.16",))
    placement.repin_units(story.farm, story.epoch)
    slot = Slot(worker_id="w2", free=True, blenders=frozenset({"4.5.16"}), gpus=0, open_scene=None)
    for _ in range(3):
        [placed] = placement.place_units(story.farm, story.epoch, [slot], {"w2": "node"}).placed
        story.commit(placed.lease)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_a_task_is_not_cut_into_more_pieces_than_a_farm_can_hold(story: Story) -> None:
    story.lead()
    with pytest.raises(InvalidSettings, match="pieces"):
        story.submit(
            story.asset(SPLITTABLE), frames="1-30000", split="tiles:11", resolution_x_px=640, resolution_y_px=480
        )
    story.submit(story.asset(SPLITTABLE), frames="1-30000", split="tiles:2")


def test_a_movie_that_cannot_be_made_says_so_without_a_frame(story: Story) -> None:
    task = story.admitted(frames="1", movie=MovieFormat.H264)
    render(story, 1)
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    failure = story.task(task.id).failure
    assert failure is not None
    assert failure.message == "it broke"
