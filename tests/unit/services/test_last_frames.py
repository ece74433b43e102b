"""The last long frames are cut, so that all workers end together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Task, Unit, UnitKind
from renderfarm.domain.movies import MovieFormat
from renderfarm.domain.paces import Paces
from renderfarm.domain.render_settings import Device
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.errors import Deposed
from renderfarm.services.last_frames import cut_last_frames
from renderfarm.services.reconcile.findings import Finding, Kind
from renderfarm.services.retries import retry_task
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.check_bench import Bench
from tests.unit.services.story import Story

SCENE = scene_facts(scene_info(split_obstacles=()))
WORKERS = ("w1", "w2")


def submitted(story: Story, **settings: object) -> Task:
    story.worker("w2")
    return story.admitted(story.asset(SCENE), 50, **settings)


def paces(task: Task, frame_s: float = 8.0, preparation_s: float = 0.1) -> Paces:
    known = Paces()
    known.note(task.id, task.asset_id, 1, frame_s, preparation_s)
    return known


def cut(story: Story, known: Paces, workers: Sequence[str] = WORKERS, busy: Collection[str] = ()) -> int:
    return cut_last_frames(story.farm, story.epoch, story.slots(workers, busy), known)


def kinds(story: Story, task: Task) -> list[str]:
    """Return what a task's units are; ``part``: of a frame."""
    return ["part" if unit.part is not None else str(unit.kind) for unit in story.units(task.id)]


def the_merge(story: Story, task: Task) -> Unit:
    [unit] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.MERGE]
    return unit


def in_parts(story: Story, **settings: object) -> tuple[Task, list[Lease]]:
    """Return a task of three frames, the last one in parts, and what is in work: a whole frame and a part."""
    task = submitted(story, frames="1-3", **settings)
    first, second = story.place(*WORKERS)
    story.commit(first)
    assert cut(story, paces(task), busy=["w2"]) == 1
    [part] = story.place(*WORKERS, busy=["w2"])
    return task, [second, part]


def finish(story: Story, leases: list[Lease]) -> None:
    for lease in leases:
        story.commit(lease)
    story.run_all()


def wrong_counters(bench: Bench) -> list[Finding]:
    return [finding for finding in bench.check().findings if finding.kind is Kind.WRONG_COUNTERS]


def test_the_last_frame_is_rendered_in_parts_by_all(story: Story) -> None:
    # T: render ready > merge blocked
    task, [_, part] = in_parts(story)
    merge = the_merge(story, task)
    assert sorted(kinds(story, task)) == ["merge"] + ["part"] * 7 + ["render"] * 2
    assert (merge.position, merge.state, merge.inputs_open) == (2, UnitState.BLOCKED, 7)
    assert {unit.feeds for unit in story.units(task.id) if unit.part is not None} == {merge.id}
    told = [entry.reason for entry in story.log(task.id) if (entry.unit_id, entry.new) == (merge.id, "blocked")]
    assert told == ["its frame is cut into 7 tiles, so that all workers end together"]
    assert (story.task(task.id).units_total, story.task(task.id).units_open) == (10, 9)
    story.commit(part)
    assert story.task(task.id).parts_done == pytest.approx(1 / 7)


def test_each_worker_has_one_more_when_the_last_is_cut(story: Story) -> None:
    task = submitted(story, frames="1-4")
    story.place(*WORKERS)
    assert cut(story, paces(task), busy=WORKERS) == 1
    assert sorted(kinds(story, task)) == ["merge"] + ["part"] * 7 + ["render"] * 3
    assert the_merge(story, task).position == 3
    assert cut(story, paces(task), busy=WORKERS) == 0  # it stays at that
    assert sorted(kinds(story, task)) == ["merge"] + ["part"] * 7 + ["render"] * 3


def test_the_task_ends_with_every_frame_once(bench: Bench) -> None:
    story = bench.story
    task, leases = in_parts(story)
    assert wrong_counters(bench) == []
    finish(story, leases)
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_open, ended.parts_done) == (TaskState.COMPLETED, 3, 0, 0.0)
    assert sorted(output.frame for output in story.outputs(task.id)) == [1, 2, 3]
    assert wrong_counters(bench) == []


def test_a_movie_waits_for_the_frame_that_was_cut(story: Story) -> None:
    task, leases = in_parts(story, movie=MovieFormat.H264)
    [encode] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.ENCODE]
    assert the_merge(story, task).feeds == encode.id
    for lease in leases:
        story.commit(lease)
    for _ in range(6):
        story.commit(story.place()[0])
    [encode] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.ENCODE]
    assert (encode.state, encode.inputs_open) == (UnitState.BLOCKED, 1)
    story.commit(story.place()[0])  # the merge
    [encode] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.ENCODE]
    assert encode.state is UnitState.READY


def test_the_cut_frame_can_be_rendered_again(story: Story) -> None:
    task, leases = in_parts(story)
    finish(story, leases)
    frame = the_merge(story, task).frames[0]
    retry_task(story.farm, LOCAL_OWNER, task.id, str(frame))
    assert {unit.state for unit in story.units(task.id) if unit.part is not None} == {UnitState.READY}
    story.run_all()
    assert (story.task(task.id).state, story.task(task.id).frames_done) == (TaskState.COMPLETED, 3)


def test_a_part_that_fails_for_good_fails_the_task_and_no_more(story: Story) -> None:
    task, [whole, part] = in_parts(story)
    story.fail(part, FailureKind.SCRIPT_ERROR)
    assert the_merge(story, task).state is UnitState.CANCELLED
    finish(story, [whole])
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_failed) == (TaskState.FAILED, 2, 1)


def test_a_frame_that_could_not_be_merged_is_not_cut_again(story: Story) -> None:
    task, leases = in_parts(story, movie=MovieFormat.H264)
    for lease in leases:
        story.commit(lease)
    for _ in range(6):
        story.commit(story.place()[0])
    [lease] = story.place()
    assert lease.unit_id == the_merge(story, task).id
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    assert cut(story, paces(task)) == 0
    story.commit(story.place()[0])  # the whole frame
    [encode] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.ENCODE]
    assert (encode.state, story.task(task.id).frames_done) == (UnitState.READY, 3)


@pytest.mark.parametrize(
    "why", ["one worker", "more is ready", "it is short", "nobody knows", "it has failed", "split"]
)
def test_what_stays_whole(story: Story, why: str) -> None:
    frames = "1-5" if why == "more is ready" else "1-3"
    task = submitted(story, frames=frames, split="none" if why == "split" else "auto")
    first, second = story.place(*WORKERS)
    known = {"it is short": paces(task, 3.0), "nobody knows": Paces()}.get(why, paces(task))
    if why == "it has failed":
        story.commit(first)
        [third] = story.place("w1")
        story.fail(third)
        story.clock.pass_(60.0)
    workers = ("w1",) if why == "one worker" else WORKERS
    assert cut(story, known, workers) == 0
    assert set(kinds(story, task)) == {"render"}
    assert second.task_id == task.id


def test_frames_that_others_wait_behind_stay_whole(story: Story) -> None:
    """Another task gives all workers something to do after it."""
    task = submitted(story, frames="1-3")
    story.admitted(story.asset(SCENE), frames="1-9")
    story.place(*WORKERS)
    assert cut(story, paces(task), busy=WORKERS) == 0


def test_only_the_end_is_cut_however_many_workers_there_are(story: Story) -> None:
    workers = [f"w{number}" for number in range(40)]
    task = submitted(story, frames="1-200")
    assert cut(story, paces(task), workers, busy=workers[1:]) == 0
    assert set(kinds(story, task)) == {"render"}


def test_who_cannot_help_is_not_counted(story: Story) -> None:
    task = submitted(story, frames="1-3")
    story.place(*WORKERS)
    free, other = story.slots(WORKERS)
    known = paces(task)
    for useless in (
        replace(other, blenders=frozenset({"3.6.0"})),
        replace(other, memory_bytes=1),
        replace(other, free=False, units=1, backlog_s=3600.0),
    ):
        assert cut_last_frames(story.farm, story.epoch, [free, useless], known) == 0
    unknown = replace(other, free=False, units=1)
    assert cut_last_frames(story.farm, story.epoch, [free, unknown], known) == 1


def test_a_frame_for_a_gpu_is_cut_for_gpus(story: Story) -> None:
    story.worker("w2")
    task = story.admitted(story.asset(SCENE), 50, frames="1-3", device=Device.GPU)
    story.place(*WORKERS)
    with_gpu, without = (replace(slot, gpus=gpus) for slot, gpus in zip(story.slots(WORKERS), (1, 0), strict=True))
    assert cut_last_frames(story.farm, story.epoch, [with_gpu, without], paces(task)) == 0
    assert cut_last_frames(story.farm, story.epoch, [with_gpu, replace(without, gpus=1)], paces(task)) == 1


def test_a_deposed_scheduler_cuts_nothing(story: Story) -> None:
    task = submitted(story, frames="1-3")
    story.place(*WORKERS)
    epoch = story.epoch
    story.lead()
    with pytest.raises(Deposed):
        cut_last_frames(story.farm, epoch, story.slots(WORKERS), paces(task))
    assert set(kinds(story, task)) == {"render"}
