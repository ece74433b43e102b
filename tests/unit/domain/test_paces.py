"""How long frames take, as far as has been seen."""

from __future__ import annotations

from renderfarm.domain.paces import Paces


def test_the_latest_frames_count_most() -> None:
    paces = Paces()
    assert paces.frame_seconds("t", "a") is None
    paces.note("t", "a", frames=1, seconds=10.0)
    paces.note("t", "a", frames=2, seconds=40.0)
    known = paces.frame_seconds("t", "a")
    assert known is not None
    assert 10.0 < known < 20.0


def test_another_task_with_the_scene_is_a_first_guess_and_no_more() -> None:
    paces = Paces()
    paces.note("t", "a", frames=1, seconds=10.0)
    assert paces.frame_seconds("u", "a") == 10.0
    assert paces.of_task("u") is None
    assert paces.frame_seconds(None, "a") is None


def test_preparing_is_what_it_takes_once_blender_is_warm() -> None:
    paces = Paces()
    for preparation_s in (3.0, None, 0.2, 0.3):
        paces.note("t", "a", 1, 10.0, preparation_s)
    pace = paces.of_task("t")
    assert pace is not None
    assert pace.preparation_s == 0.2
    assert paces.frame_seconds("t", "a", is_cold=True) == 10.2
    for open_s in (3.0, None, 2.0):
        paces.note("t", "a", 1, 10.0, open_s=open_s)
    assert paces.frame_seconds("t", "a", is_cold=True) == 12.2


def test_an_attempt_without_frames_tells_nothing() -> None:
    paces = Paces()
    paces.note("t", "a", frames=0, seconds=10.0)
    assert paces.of_task("t") is None
