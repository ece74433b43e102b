"""Frames that are unlike their neighbours are rendered once more, where a task wants that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.flaws import FlawKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Task, Unit, UnitKind
from renderfarm.domain.movies import MovieFormat
from renderfarm.domain.render_settings import FlawedFrames
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.errors import LeaseLost
from renderfarm.services import judging
from renderfarm.services.flaws import list_flaws
from renderfarm.services.retries import retry_task
from renderfarm.services.tasks import cancel_task, pause_task, resume_task
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.shown import Shown
from tests.unit.services.story import REPORT, Story

SPLITTABLE = scene_facts(scene_info(split_obstacles=()))
GREY, ODD = 100, 180


@pytest.fixture
def shown(story: Story, tmp_path: Path) -> Shown:
    return Shown(story, tmp_path)


def film(shown: Shown, *, odd: int = 5, splittable: bool = False, **settings: Any) -> Task:
    """Render nine frames of which one is unlike the others."""
    asset = shown.story.asset(SPLITTABLE) if splittable else None
    task = shown.story.admitted(asset, frames="1-9", **{"flawed": FlawedFrames.RETRY, **settings})
    render(shown, task, {odd: ODD})
    return task


def render(shown: Shown, task: Task, values: dict[int, int], worker_id: str = "w1") -> None:
    """Render and merge whatever is ready; frames are grey unless something else is told."""
    while any(unit.state is UnitState.READY and is_frame(unit) for unit in shown.story.units(task.id)):
        for lease in shown.story.place(worker_id):
            unit = shown.story.begin(lease).unit
            assert is_frame(unit)
            if unit.part is None:
                shown.seen(lease, unit.frames[0], values.get(unit.frames[0], GREY))
            else:
                shown.story.commit(lease)


def is_frame(unit: Unit) -> bool:
    return unit.kind in (UnitKind.RENDER, UnitKind.MERGE)


def of_kind(shown: Shown, task: Task, kind: UnitKind) -> list[Unit]:
    return [unit for unit in shown.story.units(task.id) if unit.kind is kind]


def place(shown: Shown, kind: UnitKind, *worker_ids: str) -> Lease:
    """Place what is ready; return the lease of the one unit of a kind."""
    leases = shown.story.place(*worker_ids)
    [lease] = [lease for lease in leases if shown.story.begin(lease).unit.kind is kind]
    return lease


def judge(shown: Shown, lease: Lease) -> None:
    outliers = judging.find_outliers(shown.story.farm, shown.story.begin(lease).unit)
    judging.commit_judgement(shown.story.farm, lease, outliers, REPORT)


def finish(shown: Shown, task: Task) -> None:
    """Do everything that there is to do; frames are grey now. The task completes."""
    while leases := shown.story.place():
        for lease in leases:
            unit = shown.story.begin(lease).unit
            if unit.kind is UnitKind.JUDGE:
                judge(shown, lease)
            else:
                shown.seen(lease, unit.frames[0], GREY)
    ended = shown.story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_open) == (TaskState.COMPLETED, 9, 0)


def told(shown: Shown, task: Task) -> list[str]:
    return [entry.reason for entry in shown.story.log(task.id) if "neighbours" in entry.reason and entry.new]


def test_an_outlier_is_rendered_once_more_by_another_worker(shown: Shown) -> None:
    # T: render succeeded > ready > running > succeeded; the task runs on until then
    task = film(shown)
    assert shown.story.task(task.id).state is TaskState.RUNNING
    judge(shown, place(shown, UnitKind.JUDGE))
    [again] = [unit for unit in of_kind(shown, task, UnitKind.RENDER) if unit.state is UnitState.READY]
    assert (again.frames, again.failed_on, shown.story.task(task.id).frames_done) == ((5,), ("w1",), 8)
    lease = place(shown, UnitKind.RENDER, "w1", "w2")
    assert lease.worker_id == "w2"
    shown.seen(lease, 5, GREY)
    judge(shown, place(shown, UnitKind.JUDGE))
    ended = shown.story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_open) == (TaskState.COMPLETED, 9, 0)
    assert list_flaws(shown.story.farm, LOCAL_OWNER, task.id, limit=10, offset=0).items == ()
    assert "frames that are unlike their neighbours are rendered once more: 5" in told(shown, task)


def test_an_outlier_that_is_one_again_stays_and_is_flagged(shown: Shown) -> None:
    task = film(shown)
    judge(shown, place(shown, UnitKind.JUDGE))
    render(shown, task, {5: ODD})
    judge(shown, place(shown, UnitKind.JUDGE))
    assert shown.story.task(task.id).state is TaskState.COMPLETED
    [flaw] = list_flaws(shown.story.farm, LOCAL_OWNER, task.id, limit=10, offset=0).items
    assert (flaw.frame, flaw.kind) == (5, FlawKind.OUTLIER)
    assert "frames that are unlike their neighbours are not rendered once more: 5" in told(shown, task)


def test_a_film_without_outliers_is_judged_once(shown: Shown) -> None:
    task = shown.story.admitted(frames="1-9", flawed=FlawedFrames.RETRY)
    render(shown, task, {})
    judge(shown, place(shown, UnitKind.JUDGE))
    assert shown.story.task(task.id).state is TaskState.COMPLETED
    assert len(of_kind(shown, task, UnitKind.JUDGE)) == 1


def test_the_parts_of_an_outlier_are_rendered_again(shown: Shown) -> None:
    # T: merge succeeded > blocked > ready, its parts succeeded > ready
    task = film(shown, splittable=True, split="tiles:2")
    judge(shown, place(shown, UnitKind.JUDGE))
    waiting = [unit for unit in shown.story.units(task.id) if unit.state in (UnitState.READY, UnitState.BLOCKED)]
    assert {unit.frames for unit in waiting} == {(5,)}
    assert sorted(unit.kind for unit in waiting) == [UnitKind.MERGE, UnitKind.RENDER, UnitKind.RENDER]
    render(shown, task, {})
    judge(shown, place(shown, UnitKind.JUDGE))
    assert shown.story.task(task.id).state is TaskState.COMPLETED


def test_a_movie_waits_for_the_frame(shown: Shown) -> None:
    # T: encode ready > blocked > ready
    task = film(shown, movie=MovieFormat.H264)
    judge(shown, place(shown, UnitKind.JUDGE, "w1", "w2"))
    [encode] = of_kind(shown, task, UnitKind.ENCODE)
    assert (encode.state, encode.inputs_open) == (UnitState.BLOCKED, 1)
    render(shown, task, {})
    [encode] = of_kind(shown, task, UnitKind.ENCODE)
    assert encode.state is UnitState.READY


def test_a_frame_that_is_undone_meanwhile_is_not_judged(shown: Shown) -> None:
    task = film(shown)
    lease = place(shown, UnitKind.JUDGE)
    outliers = judging.find_outliers(shown.story.farm, shown.story.begin(lease).unit)
    retry_task(shown.story.farm, LOCAL_OWNER, task.id, "5")
    judging.commit_judgement(shown.story.farm, lease, outliers, REPORT)
    [again] = [unit for unit in of_kind(shown, task, UnitKind.RENDER) if unit.state is UnitState.READY]
    assert (again.frames, again.failures) == ((5,), ())


def test_a_judgement_whose_lease_is_lost_undoes_nothing(shown: Shown) -> None:
    task = film(shown)
    lease = place(shown, UnitKind.JUDGE)
    outliers = judging.find_outliers(shown.story.farm, shown.story.begin(lease).unit)
    shown.story.fail(lease)
    with pytest.raises(LeaseLost):
        judging.commit_judgement(shown.story.farm, lease, outliers, REPORT)
    assert shown.story.task(task.id).frames_done == 9


def test_a_judgement_that_cannot_be_made_fails_no_task(shown: Shown) -> None:
    # T: judge running > cancelled
    task = film(shown)
    shown.story.fail(place(shown, UnitKind.JUDGE), FailureKind.SCRIPT_ERROR)
    assert shown.story.task(task.id).state is TaskState.COMPLETED


def test_a_task_that_is_cancelled_before_it_is_judged_may_be_retried(shown: Shown) -> None:
    # T: judge ready > cancelled > ready
    task = film(shown)
    cancel_task(shown.story.farm, LOCAL_OWNER, task.id)
    assert shown.story.task(task.id).state is TaskState.CANCELLED
    retry_task(shown.story.farm, LOCAL_OWNER, task.id, None)
    finish(shown, task)


def test_a_paused_task_renders_its_outlier_when_it_is_resumed(shown: Shown) -> None:
    task = film(shown)
    lease = place(shown, UnitKind.JUDGE)
    pause_task(shown.story.farm, LOCAL_OWNER, task.id)
    judge(shown, lease)
    assert shown.story.place() == []
    resume_task(shown.story.farm, LOCAL_OWNER, task.id)
    finish(shown, task)


@pytest.mark.parametrize(("frames", "flawed"), [("1-9", FlawedFrames.FLAG), ("1-2", FlawedFrames.RETRY)])
def test_nothing_is_judged_in_vain(shown: Shown, frames: str, flawed: FlawedFrames) -> None:
    task = shown.story.admitted(frames=frames, flawed=flawed)
    render(shown, task, {2: ODD})
    assert shown.story.task(task.id).state is TaskState.COMPLETED
    assert of_kind(shown, task, UnitKind.JUDGE) == []
