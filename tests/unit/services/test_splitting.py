"""Frames in parts: a merge waits for them, and what is undone takes with it what was made of it."""

from __future__ import annotations

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.models import OutputRole, Task, Unit, UnitKind
from renderfarm.domain.parts import Tile
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.services import placement, progress, tasks
from renderfarm.services.outputs import list_outputs
from renderfarm.services.reconcile.findings import Kind
from renderfarm.services.retries import fail_flawed_merge, retry_task
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.check_bench import Bench
from tests.unit.services.story import REPORT, Story

SCENE = scene_facts(scene_info(split_obstacles=()))


@pytest.fixture
def task(story: Story) -> Task:
    """A still in four tiles."""
    return story.admitted(story.asset(SCENE), frames="1", split="tiles:4")


def parts(story: Story, task: Task) -> list[Unit]:
    return [unit for unit in story.units(task.id) if unit.kind is UnitKind.RENDER]


def merge(story: Story, task: Task) -> Unit:
    [unit] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.MERGE]
    return unit


def commit_parts(story: Story, count: int) -> None:
    for _ in range(count):
        [lease] = story.place()
        story.commit(lease)


def files(story: Story, task: Task, role: OutputRole) -> int:
    with story.farm.database.read() as tx:
        outputs = tx.outputs.of_units([unit.id for unit in story.units(task.id)])
    return sum(output.role is role for output in outputs)


def test_a_merge_waits_for_every_part(story: Story, task: Task) -> None:
    # T: blocked > ready > running > succeeded
    assert [unit.part for unit in parts(story, task)] == [
        Tile(x0_px=0, y0_px=45 * row, x1_px=320, y1_px=45 * (row + 1)) for row in range(4)
    ]
    assert (merge(story, task).state, merge(story, task).inputs_open) == (UnitState.BLOCKED, 4)
    commit_parts(story, 3)
    assert (merge(story, task).state, merge(story, task).inputs_open) == (UnitState.BLOCKED, 1)
    commit_parts(story, 1)
    assert merge(story, task).state is UnitState.READY
    assert story.task(task.id).frames_done == 0
    [lease] = story.place()
    story.commit(lease)
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_total) == (TaskState.COMPLETED, 1, 5)


def test_parts_are_nobodys_outputs_and_go_with_the_merge(story: Story, task: Task) -> None:
    commit_parts(story, 4)
    assert files(story, task, OutputRole.PART) == 4
    assert list_outputs(story.farm, LOCAL_OWNER, task.id, limit=10, offset=0).total == 0
    commit_parts(story, 1)  # the merge
    assert files(story, task, OutputRole.PART) == 0
    [output] = list_outputs(story.farm, LOCAL_OWNER, task.id, limit=10, offset=0).items
    assert (output.name, output.role) == ("0001.png", OutputRole.PICTURE)


def test_the_log_and_the_output_of_a_merged_frame_tell_the_same_time(story: Story, task: Task) -> None:
    commit_parts(story, 5)  # 2 s each
    [output] = list_outputs(story.farm, LOCAL_OWNER, task.id, limit=10, offset=0).items
    assert output.render_seconds == 10.0
    told = [entry.reason for entry in story.log(task.id) if entry.event == "frame.committed"]
    assert told == [
        *["a part of frame 1 in 2.00 s of rendering"] * 4,
        "frame 1 in 10.00 s of rendering: 4 parts 8.00 s, merged in 2.00 s",
    ]


def percent(story: Story, task: Task) -> float:
    progress.keep_statuses(story.farm, [task.id])
    return progress.get_status(story.farm, LOCAL_OWNER, task.id).progress


def test_the_parts_make_the_progress(story: Story, task: Task) -> None:
    for done in range(4):
        assert percent(story, task) == 25.0 * done
        [lease] = story.place()
        story.renew(lease, 0.5)
        assert percent(story, task) == 25.0 * done + 12.5
        story.commit(lease)
    assert percent(story, task) == 100.0


def test_a_part_that_fails_for_good_takes_the_merge_with_it(story: Story, task: Task) -> None:
    # T: part running > failed, merge blocked > cancelled
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    assert merge(story, task).state is UnitState.CANCELLED
    commit_parts(story, 3)
    ended = story.task(task.id)
    assert (ended.state, ended.units_failed, ended.units_open) == (TaskState.FAILED, 1, 0)


def test_a_retry_renders_what_failed_and_merges(story: Story, task: Task) -> None:
    # T: part failed > ready, merge cancelled > ready > blocked
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    commit_parts(story, 3)
    retry_task(story.farm, LOCAL_OWNER, task.id, None)
    assert (merge(story, task).state, merge(story, task).inputs_open) == (UnitState.BLOCKED, 1)
    commit_parts(story, 2)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_a_retry_of_a_merged_frame_renders_its_parts_again(story: Story, task: Task) -> None:
    commit_parts(story, 5)
    retry_task(story.farm, LOCAL_OWNER, task.id, "1")
    assert {unit.state for unit in parts(story, task)} == {UnitState.READY}
    assert (merge(story, task).state, merge(story, task).inputs_open) == (UnitState.BLOCKED, 4)
    commit_parts(story, 5)
    assert (story.task(task.id).state, story.task(task.id).frames_done) == (TaskState.COMPLETED, 1)


def test_a_cancelled_still_can_be_taken_up_again(story: Story, task: Task) -> None:
    commit_parts(story, 2)
    tasks.cancel_task(story.farm, LOCAL_OWNER, task.id)
    assert merge(story, task).state is UnitState.CANCELLED
    retry_task(story.farm, LOCAL_OWNER, task.id, None)
    assert (merge(story, task).state, merge(story, task).inputs_open) == (UnitState.BLOCKED, 2)
    commit_parts(story, 3)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_a_picture_that_looks_wrong_is_made_of_new_parts(bench: Bench) -> None:
    # T: merge running > ready > blocked, parts succeeded > ready
    story = bench.story
    task = story.admitted(story.asset(SCENE), frames="1", split="tiles:4")
    commit_parts(story, 4)
    [lease] = story.place()
    fail_flawed_merge(story.farm, lease, Failure(kind=FailureKind.FLAWED, message="all black"), REPORT)
    assert {unit.state for unit in parts(story, task)} == {UnitState.READY}
    assert (merge(story, task).state, merge(story, task).inputs_open) == (UnitState.BLOCKED, 4)
    assert files(story, task, OutputRole.PART) == 0
    assert [finding for finding in bench.check().findings if finding.kind is Kind.WRONG_COUNTERS] == []
    story.clock.pass_(60.0)
    commit_parts(story, 5)
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_failed) == (TaskState.COMPLETED, 1, 0)


def given_up(story: Story, task: Task) -> Unit:
    """Let a still's merge fail for good; return what has become of it."""
    commit_parts(story, 4)
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    [whole] = [unit for unit in story.units(task.id) if unit.part is None]
    return whole


def test_a_frame_whose_parts_cannot_be_merged_is_rendered_whole(bench: Bench) -> None:
    # T: merge running > render ready
    story = bench.story
    task = story.admitted(story.asset(SCENE), frames="1", split="tiles:4")
    placement.raise_needs(story.farm, story.epoch, task.id, 20 * 2**30)
    whole = given_up(story, task)
    assert (whole.kind, whole.state, whole.share) == (UnitKind.RENDER, UnitState.READY, 1.0)
    assert (whole.failures, whole.memory_bytes) == ((FailureKind.LOST,), 20 * 2**30)
    assert "script_error: it broke (the frame is rendered whole)" in [entry.reason for entry in story.log(task.id)]
    now = story.task(task.id)
    assert (now.state, now.parts_done, now.render_seconds, now.units_open) == (TaskState.RUNNING, 0.0, 0.0, 1)
    assert files(story, task, OutputRole.PART) == 0
    assert [finding for finding in bench.check().findings if finding.kind is Kind.WRONG_COUNTERS] == []
    commit_parts(story, 1)  # the whole
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_failed) == (TaskState.COMPLETED, 1, 0)
    assert [finding for finding in bench.check().findings if finding.kind is Kind.WRONG_COUNTERS] == []


def test_a_retry_of_a_frame_that_became_whole_leaves_its_parts_alone(story: Story, task: Task) -> None:
    whole = given_up(story, task)
    commit_parts(story, 1)
    retry_task(story.farm, LOCAL_OWNER, task.id, "1")
    assert [unit.id for unit in story.units(task.id) if unit.state is UnitState.READY] == [whole.id]
    commit_parts(story, 1)
    assert (story.task(task.id).state, story.task(task.id).frames_done) == (TaskState.COMPLETED, 1)


def test_a_frame_that_cannot_be_rendered_whole_either_fails_its_task(story: Story, task: Task) -> None:
    given_up(story, task)
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    ended = story.task(task.id)
    assert (ended.state, ended.units_failed, ended.units_open) == (TaskState.FAILED, 1, 0)
    retry_task(story.farm, LOCAL_OWNER, task.id, None)
    commit_parts(story, 1)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_a_picture_that_looks_wrong_and_then_cannot_be_merged_is_rendered_whole(story: Story, task: Task) -> None:
    commit_parts(story, 4)
    [lease] = story.place()
    fail_flawed_merge(story.farm, lease, Failure(kind=FailureKind.SCRIPT_ERROR, message="it broke"), REPORT)
    assert [unit.kind for unit in story.units(task.id) if unit.state is UnitState.READY] == [UnitKind.RENDER]
    commit_parts(story, 1)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_counters_agree_at_every_step(bench: Bench) -> None:
    story = bench.story
    task = story.admitted(story.asset(SCENE), frames="1", split="tiles:4")
    for _ in range(5):
        commit_parts(story, 1)
        assert [finding for finding in bench.check().findings if finding.kind is Kind.WRONG_COUNTERS] == []
    assert story.task(task.id).state is TaskState.COMPLETED


def test_what_cannot_be_split_is_not_and_the_log_says_why(story: Story) -> None:
    eevee = scene_facts(scene_info(engine="BLENDER_EEVEE_NEXT", split_obstacles=()))
    task = story.admitted(story.asset(eevee), frames="1", split="tiles:4")
    assert [unit.kind for unit in story.units(task.id)] == [UnitKind.RENDER]
    assert [entry.reason for entry in story.log(task.id) if entry.event == "task.split"] == [
        "frames are not split: BLENDER_EEVEE_NEXT has effects that need the whole picture; only Cycles is split"
    ]
