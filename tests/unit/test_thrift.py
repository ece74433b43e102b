"""What a session keeps between frames, decided without a Blender."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from blender_runtime.thrift import Thrift


class Render(SimpleNamespace):
    """A scene's render settings, which count how often what is kept is thrown away."""

    def __init__(self, **values: Any) -> None:
        super().__init__(thrown_away=0, engine="CYCLES", use_stamp=False, **values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "use_persistent_data" and not value and getattr(self, name, False):
            self.thrown_away += 1
        super().__setattr__(name, value)


class Story:
    """A file that is open, and frames that are rendered in it."""

    def __init__(
        self, *, file_keeps: bool = False, wanted: str = "auto", saving_min: float = 0.1, is_first: bool = False
    ) -> None:
        self.thrift = Thrift()
        self.render = Render(use_persistent_data=file_keeps)
        self.scene: Any = SimpleNamespace(render=self.render)
        if not is_first:  # another file was rendered before
            self.thrift.count_frame(self.scene, 0.0, 1.0, is_part=True)
        self.thrift.opened("a.blend")
        self.thrift.chosen(self.scene)
        self.wanted = wanted
        self.saving_min = saving_min
        self.keep()

    def keep(self, *, is_part: bool = False) -> None:
        self.thrift.keep(self.scene, self.wanted, is_part=is_part, saving_min=self.saving_min)

    def frame(self, number: int, preparation_s: float, took_s: float, *, is_part: bool = False) -> bool:
        self.keep(is_part=is_part)
        self.thrift.begin(self.scene, number, is_part=is_part)
        return self.thrift.count_frame(self.scene, preparation_s, took_s, is_part=is_part)

    def keeps(self) -> bool:
        return bool(self.render.use_persistent_data)


def test_what_saves_much_is_kept() -> None:
    story = Story()
    assert [story.frame(1, 0.8, 1.0), story.frame(2, 0.1, 0.3), story.frame(3, 0.1, 0.3)] == [False, True, True]
    assert story.keeps()


def test_what_cannot_save_much_is_not_kept_from_the_first_frame_on() -> None:
    story = Story()
    assert [story.frame(1, 0.09, 1.0), story.frame(2, 0.09, 1.0)] == [False, False]
    assert not story.keeps()


def test_what_must_be_saved_is_the_tasks_to_say() -> None:
    story = Story(saving_min=0.02)
    assert [story.frame(1, 0.03, 1.0), story.frame(2, 0.0, 0.97)] == [False, True]
    assert story.keeps()
    story.saving_min = 0.2  # another task on the same scene, that pays more for verifying
    assert [story.frame(3, 0.0, 0.97), story.frame(4, 0.03, 1.0)] == [True, False]
    assert not story.keeps()
    story.saving_min = 0.03  # and one that pays less again
    assert [story.frame(5, 0.03, 1.0), story.frame(6, 0.0, 0.97)] == [False, True]


def test_a_frame_that_was_disturbed_for_a_moment_is_no_disappointment() -> None:
    story = Story(saving_min=0.02)
    story.frame(1, 0.03, 1.0)
    assert all(story.frame(number, 0.015, 1.0) for number in range(2, 9))  # saves three quarters of what it must
    assert story.keeps()


def test_the_first_frame_of_a_process_is_no_measure_of_little() -> None:
    story = Story(saving_min=0.02, is_first=True)
    assert [story.frame(1, 0.06, 1.0), story.frame(2, 0.01, 0.95)] == [False, True]  # it seems to save 0.05
    assert [story.frame(3, 0.012, 0.95), story.frame(4, 0.01, 0.95)] == [False, False]  # it could save 0.012
    assert not story.keeps()


def test_it_is_measure_enough_where_much_is_saved() -> None:
    story = Story(is_first=True)
    assert [story.frame(1, 0.8, 1.0), story.frame(2, 0.1, 0.3), story.frame(3, 0.1, 0.3)] == [False, True, True]


def test_what_has_not_saved_much_twice_is_not_kept_any_more() -> None:
    story = Story()
    assert [story.frame(1, 0.8, 1.0), story.frame(2, 0.77, 0.97)] == [False, True]
    assert story.keeps()
    assert [story.frame(3, 0.8, 1.0), story.frame(4, 0.8, 1.0)] == [False, True]  # cold, to compare with
    assert not story.keeps()
    assert [story.frame(5, 0.8, 1.0), story.frame(6, 0.8, 1.0)] == [False, False]
    assert not story.keeps()


def test_one_frame_of_another_kind_does_not_end_the_keeping() -> None:
    story = Story()
    assert [story.frame(1, 0.5, 1.0), story.frame(100, 0.6, 2.0)] == [False, True]  # cold it would be 5 s
    assert [story.frame(2, 5.0, 6.0), story.frame(3, 0.6, 2.0), story.frame(4, 0.6, 2.0)] == [False, True, True]
    assert story.keeps()


def test_keeping_begins_once_there_is_something_to_keep() -> None:
    story = Story()
    assert [story.frame(1, 0.01, 1.0), story.frame(2, 0.01, 1.0)] == [False, False]
    assert [story.frame(3, 4.0, 5.0), story.frame(4, 4.0, 5.0), story.frame(5, 0.1, 1.1)] == [False, False, True]


def test_parts_are_kept_for_however_little_that_saves() -> None:
    story = Story()
    story.frame(1, 0.05, 1.0, is_part=True)
    story.frame(1, 0.05, 1.0, is_part=True)
    assert story.keeps()
    assert story.render.thrown_away == 0
    story.frame(2, 0.0, 1.0)  # a whole frame, for which it does not pay
    story.frame(3, 0.0, 1.0, is_part=True)
    assert story.keeps()


def test_a_part_gets_nothing_of_what_several_frames_have_left() -> None:
    story = Story()
    assert [story.frame(1, 0.5, 1.0), story.frame(2, 0.1, 0.6)] == [False, True]
    story.frame(2, 0.5, 1.0, is_part=True)
    assert story.render.thrown_away == 1


def test_the_next_unit_does_not_begin_to_keep_again_but_a_file_opened_anew_does() -> None:
    story = Story()
    story.frame(1, 0.0, 1.0)
    story.keep()
    assert not story.keeps()
    story.thrift.opened("a.blend")
    story.keep()
    assert story.keeps()


@pytest.mark.parametrize(
    ("wanted", "file_keeps", "keeps"), [("on", False, True), ("file", True, True), ("off", True, False)]
)
def test_what_somebody_has_chosen_is_not_weighed(wanted: str, file_keeps: bool, keeps: bool) -> None:
    story = Story(file_keeps=file_keeps, wanted=wanted)
    assert [story.frame(1, 0.0, 1.0), story.frame(2, 0.0, 1.0)] == [False, keeps]
    assert story.keeps() is keeps


def test_parts_get_data_of_their_own_frame_only() -> None:
    story = Story()
    story.frame(1, 0.5, 1.0, is_part=True)
    assert story.render.thrown_away == 0
    assert not story.frame(1, 0.1, 0.6, is_part=True)  # which is no earlier frame's data
    assert story.render.thrown_away == 0
    story.frame(2, 0.5, 1.0, is_part=True)
    assert story.render.thrown_away == 1
    assert story.keeps()


def test_a_whole_frame_behind_parts_of_another_is_warm() -> None:
    story = Story()
    story.frame(1, 0.5, 1.0, is_part=True)
    assert story.frame(2, 0.1, 0.6)


def test_what_a_merge_has_freed_saves_nothing_and_is_not_held_against_keeping() -> None:
    story = Story()
    story.frame(1, 0.5, 1.0)
    story.thrift.forget()
    assert not story.frame(2, 0.5, 1.0)
    assert story.keeps()


def test_what_was_dropped_for_want_of_memory_stays_dropped() -> None:
    story = Story(wanted="on")
    story.thrift.drop_data(story.scene)
    story.thrift.opened("a.blend")
    story.keep()
    assert not story.keeps()
    story.thrift.opened("another.blend")
    story.keep()
    assert story.keeps()
