"""What looks wrong with a task's pictures: what each shows by itself, and what its neighbours tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.flaws import Flaw, FlawKind
from renderfarm.domain.models import Task
from renderfarm.errors import NotFound
from renderfarm.services.flaws import list_flaws
from renderfarm.services.retries import retry_task
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.services.shown import Shown
from tests.unit.services.story import Story

BLACK = Flaw(kind=FlawKind.BLACK, message="the picture is all black")


@pytest.fixture
def shown(story: Story, tmp_path: Path) -> Shown:
    return Shown(story, tmp_path)


def commit_all(shown: Shown, values: dict[int, int]) -> None:
    """Commit frames, grey as told, black ones as such; what is not told stays as it is."""
    waiting = dict(values)
    while waiting:
        [lease] = shown.story.place()
        [frame] = shown.story.begin(lease).frames
        if frame in waiting:
            value = waiting.pop(frame)
            shown.seen(lease, frame, value, *([BLACK] if value == 0 else []))


def flaws(shown: Shown, task: Task, limit: int = 100, offset: int = 0) -> list[tuple[int, FlawKind]]:
    page = list_flaws(shown.story.farm, LOCAL_OWNER, task.id, limit=limit, offset=offset)
    return [(flaw.frame, flaw.kind) for flaw in page.items]


def test_a_flaw_names_its_picture(shown: Shown) -> None:
    task = shown.story.admitted(frames="1")
    [lease] = shown.story.place()
    output = shown.seen(lease, 1, 0, BLACK)
    [flaw] = list_flaws(shown.story.farm, LOCAL_OWNER, task.id, limit=10, offset=0).items
    assert (flaw.output_id, flaw.name, flaw.frame, flaw.camera) == (output.id, "0001.png", 1, None)
    assert (flaw.kind, flaw.message) == (FlawKind.BLACK, "the picture is all black")
    assert [entry.reason for entry in shown.story.log(task.id) if entry.event == "frame.flawed"] == [
        "frame 1: the picture is all black"
    ]


def test_a_frame_unlike_its_neighbours_is_found_once_they_are_there(shown: Shown) -> None:
    task = shown.story.admitted(frames="1-9")
    values = dict.fromkeys(range(1, 10), 100) | {5: 180}
    commit_all(shown, {frame: values[frame] for frame in (1, 5, 9)})
    assert flaws(shown, task) == []
    commit_all(shown, {frame: value for frame, value in values.items() if frame not in (1, 5, 9)})
    assert flaws(shown, task) == [(5, FlawKind.OUTLIER)]


def test_a_film_may_begin_in_the_dark(shown: Shown) -> None:
    task = shown.story.admitted(frames="1-9")
    commit_all(shown, {1: 0, 2: 0, 3: 20, 4: 45, 5: 70, 6: 95, 7: 120, 8: 120, 9: 120})
    assert flaws(shown, task) == []


def test_cameras_are_films_of_their_own(shown: Shown) -> None:
    facts = scene_facts(scene_info(cameras=("Left", "Right")))
    task = shown.story.admitted(shown.story.asset(facts), frames="1-3", camera="all")
    for _ in range(6):
        [lease] = shown.story.place()
        assignment = shown.story.begin(lease)
        shown.seen(lease, assignment.frames[0], 60 if assignment.unit.camera == "Left" else 200)
    assert flaws(shown, task) == []


def test_what_nobody_has_looked_at_is_not_judged(shown: Shown) -> None:
    task = shown.story.admitted()
    shown.story.run_all()
    assert flaws(shown, task) == []
    assert [output.flaws for output in shown.story.outputs(task.id)] == [None] * 3


def test_a_list_in_pages(shown: Shown) -> None:
    task = shown.story.admitted(frames="1-5")
    commit_all(shown, dict.fromkeys(range(1, 6), 0))
    assert flaws(shown, task, limit=2, offset=3) == [(4, FlawKind.BLACK), (5, FlawKind.BLACK)]
    assert list_flaws(shown.story.farm, LOCAL_OWNER, task.id, limit=1, offset=0).total == 5


def test_a_frame_that_is_rendered_again_is_judged_again(shown: Shown) -> None:
    task = shown.story.admitted(frames="1")
    commit_all(shown, {1: 0})
    retry_task(shown.story.farm, LOCAL_OWNER, task.id, "1")
    assert flaws(shown, task) == []
    commit_all(shown, {1: 90})
    assert flaws(shown, task) == []


def test_an_unknown_task(shown: Shown) -> None:
    with pytest.raises(NotFound):
        list_flaws(shown.story.farm, LOCAL_OWNER, "nope", limit=1, offset=0)
