from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.frames import FRAME_MAX, FRAME_MIN, FRAMES_PER_TASK_MAX, format_frames, parse_frames
from renderfarm.errors import InvalidFrames

frame_numbers = st.integers(FRAME_MIN, FRAME_MAX)
frame_sets = st.one_of(
    st.sets(st.integers(-40, 40), min_size=1),  # dense: runs and steps
    st.sets(frame_numbers, min_size=1, max_size=30),
)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, set[int]]:
    """A part of a frame range as text, and the frames that it means."""
    first = draw(st.integers(-500, 500))
    length = draw(st.integers(0, 300))
    step = draw(st.integers(1, 40))
    text = f"{first}-{first + length}x{step}"
    return text, {first + offset for offset in range(0, length + 1, step)}


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("7", (7,)),
        ("1-4", (1, 2, 3, 4)),
        ("1-10,15,20-40x5", (*range(1, 11), 15, 20, 25, 30, 35, 40)),
        ("1-10x3", (1, 4, 7, 10)),
        ("1-9x3", (1, 4, 7)),
        ("3-3", (3,)),
        ("0", (0,)),
        ("-3", (-3,)),
        ("-5--3", (-5, -4, -3)),
        ("-2-2x2", (-2, 0, 2)),
        ("5,1,3,1-2", (1, 2, 3, 5)),
        (" 1 , 2-3\n", (1, 2, 3)),
        ("007", (7,)),
        (f"{FRAME_MIN},{FRAME_MAX}", (FRAME_MIN, FRAME_MAX)),
    ],
)
def test_reads_what_people_write(text: str, frames: tuple[int, ...]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        (",", "not a frame"),
        ("1,", "not a frame"),
        ("1,,2", "not a frame"),
        ("one", "not a frame"),
        ("1.5", "not a frame"),
        ("1-", "not a frame"),
        ("--1", "not a frame"),
        ("1-2-3", "not a frame"),
        ("1..10", "not a frame"),
        ("5x2", "not a frame"),
        ("1-10x-2", "not a frame"),
        ("1-10x", "not a frame"),
        ("1 - 10", "not a frame"),
        ("١", "not a frame"),
        ("1-10x0", "step of zero"),
        ("10-1", "backwards"),
        ("-1--5", "backwards"),
        (str(FRAME_MAX + 1), "beyond"),
        (str(FRAME_MIN - 1), "beyond"),
        ("1-99999999999999999999", "beyond"),
        ("1-10x99999999999999999999", "beyond"),
        ("9" * 5000, "beyond"),
    ],
)
def test_refuses_the_rest_in_one_short_line(text: str, reason: str) -> None:
    with pytest.raises(InvalidFrames, match=reason) as raised:
        parse_frames(text)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 200


def test_a_task_has_room_for_a_long_film_and_no_more() -> None:
    assert len(parse_frames(f"1-{FRAMES_PER_TASK_MAX}")) == FRAMES_PER_TASK_MAX
    with pytest.raises(InvalidFrames, match="more than"):
        parse_frames(f"{FRAME_MIN}-{FRAME_MAX}")


@given(frame_sets)
def test_what_is_written_reads_back(frames: set[int]) -> None:
    ascending = tuple(sorted(frames))
    assert parse_frames(format_frames(ascending)) == ascending


@given(ranges())
def test_an_even_run_is_written_as_one_part(part: tuple[str, set[int]]) -> None:
    frames = sorted(part[1])
    assert len(format_frames(frames).split(",")) <= (1 if len(frames) > 2 else len(frames))


@given(st.lists(ranges(), min_size=1, max_size=5))
def test_parts_add_up_to_their_union(parts: list[tuple[str, set[int]]]) -> None:
    frames = parse_frames(",".join(text for text, _ in parts))
    assert set(frames) == set().union(*(expected for _, expected in parts))
    assert list(frames) == sorted(set(frames))


@given(st.text(alphabet="0123456789-x, ", max_size=20))
def test_any_text_is_either_frames_or_refused(text: str) -> None:
    try:
        frames = parse_frames(text)
    except InvalidFrames:
        return
    assert frames
    assert all(FRAME_MIN <= frame <= FRAME_MAX for frame in frames)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ((), ""),
        ((5,), "5"),
        ((1, 2), "1-2"),
        ((1, 3), "1,3"),
        ((1, 3, 5), "1-5x2"),
        ((1, 2, 3, 10, 20, 30), "1-3,10-30x10"),
        ((-3, -2, -1), "-3--1"),
    ],
)
def test_writes_the_short_form(frames: tuple[int, ...], text: str) -> None:
    assert format_frames(frames) == text
