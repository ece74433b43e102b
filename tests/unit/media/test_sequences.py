"""What neighbours tell: outliers among them, fades, and all that is neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from renderfarm.media.flaws import Flaw, FlawKind
from renderfarm.media.pictures import Picture
from renderfarm.media.sequences import IMPRESSION_PX, Glance, flaws_in_sequence, impression

_HEIGHT, _WIDTH = 90, 160
Grey = NDArray[np.float64]


def landscape(seed: int, scale_px: int = 20) -> Grey:
    """Return a wide picture of soft hills."""
    heights = np.random.default_rng(seed).random((_HEIGHT // scale_px + 2, _WIDTH * 4 // scale_px + 2))
    y, x = np.arange(_HEIGHT) / scale_px, np.arange(_WIDTH * 4) / scale_px
    rows = np.array([np.interp(y, np.arange(len(column)), column) for column in heights.T]).T
    return np.array([np.interp(x, np.arange(len(row)), row) for row in rows])


def pan(count: int, speed_px: float, seed: int = 1, noise: float = 0.03) -> list[Grey]:
    """Return a camera move over a landscape, with a render's noise."""
    wide, grain = landscape(seed), np.random.default_rng(seed)
    frames = [wide[:, int(i * speed_px) : int(i * speed_px) + _WIDTH] for i in range(count)]
    return [np.clip(frame + grain.normal(0, noise, frame.shape), 0.01, 1) for frame in frames]


def faded(frames: Sequence[Grey], count: int, power: float) -> list[Grey]:
    return [frame * min(1, i / count) ** power for i, frame in enumerate(frames)]


def picture(grey: Grey, *, is_linear: bool = False) -> Picture:
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    stored = pixels.astype(np.float32) if is_linear else np.round(pixels * 255).astype(np.uint8)
    return Picture(pixels=stored, channels=("R", "G", "B"), is_linear=is_linear, is_premultiplied=False)


def glance(grey: Grey) -> Glance:
    black = (Flaw(kind=FlawKind.BLACK, message="the picture is all black"),)
    return Glance(impression=impression(picture(grey)), flaws=black if grey.max() == 0 else ())


def found(frames: Sequence[Grey]) -> dict[int, list[FlawKind]]:
    return kinds(flaws_in_sequence(range(len(frames)), dict(enumerate(map(glance, frames)))))


def kinds(flaws: Mapping[int, tuple[Flaw, ...]]) -> dict[int, list[FlawKind]]:
    return {frame: [flaw.kind for flaw in some] for frame, some in flaws.items() if some}


BLACK, WHITE = np.zeros((_HEIGHT, _WIDTH)), np.ones((_HEIGHT, _WIDTH))
GARBAGE = np.random.default_rng(7).random((_HEIGHT, _WIDTH))


# --- impressions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(90, 160), (1, 1), (7, 5), (17, 33), (18, 32), (270, 100)])
def test_an_impression_of_any_size_is_32_by_18(size: tuple[int, int]) -> None:
    assert impression(picture(np.full(size, 0.2))) == bytes([51]) * (32 * 18)


def test_an_impression_has_its_rows_from_the_top() -> None:
    grey = np.zeros((36, 64))
    grey[:2, 2:4] = 1
    seen = np.frombuffer(impression(picture(grey)), np.uint8).reshape(IMPRESSION_PX[::-1])
    assert (seen[0, 1], seen.sum()) == (255, 255)


def test_an_impression_of_light_is_no_flash_where_a_pixel_glares() -> None:
    grey = np.full((180, 320), 0.1)
    calm = np.frombuffer(impression(picture(grey, is_linear=True)), np.uint8).astype(int)
    grey[90, 160], grey[10, 10], grey[20, 20] = 1e6, math.nan, math.inf
    glaring = np.frombuffer(impression(picture(grey, is_linear=True)), np.uint8)
    assert np.abs(glaring - calm).max() <= 3


# --- outliers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [BLACK, WHITE, GARBAGE, WHITE * 0.5, landscape(9)[:, :_WIDTH]])
@pytest.mark.parametrize("at", [1, 3, 7, 12])
def test_one_wrong_frame_is_an_outlier(wrong: Grey, at: int) -> None:
    frames = pan(14, 2)
    frames[at] = wrong
    own = [FlawKind.BLACK] if wrong is BLACK else []
    assert found(frames) == {at: [*own, FlawKind.OUTLIER]}


@pytest.mark.parametrize("at", [0, 13])
@pytest.mark.parametrize("wrong", [BLACK, WHITE])
def test_a_wrong_first_or_last_frame_is_an_outlier(wrong: Grey, at: int) -> None:
    frames = pan(14, 2)
    frames[at] = wrong
    assert FlawKind.OUTLIER in found(frames)[at]


@pytest.mark.parametrize("at", [3, 7])
def test_a_half_rendered_frame_is_an_outlier(at: int) -> None:
    frames = pan(14, 2)
    frames[at] = np.where(np.arange(_HEIGHT)[:, None] < 45, frames[at], 0)
    assert found(frames) == {at: [FlawKind.OUTLIER]}


def test_two_wrong_frames_are_two_outliers() -> None:
    frames = pan(14, 2)
    frames[4], frames[9] = BLACK, WHITE
    assert found(frames) == {4: [FlawKind.BLACK, FlawKind.OUTLIER], 9: [FlawKind.OUTLIER]}


def test_a_wrong_frame_of_a_dark_film_is_an_outlier() -> None:
    frames = [frame * 0.08 for frame in pan(14, 2, noise=0.002)]
    frames[6] = WHITE
    assert found(frames) == {6: [FlawKind.OUTLIER]}


@given(speed_px=st.floats(0, 30), seed=st.integers(0, 1000))
def test_a_camera_move_has_no_outliers(speed_px: float, seed: int) -> None:
    assert found(pan(14, speed_px, seed)) == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_camera_in_the_hand_has_no_outliers(seed: int) -> None:
    wide, steps_px = landscape(seed), np.cumsum(np.random.default_rng(seed).normal(0, 1.5, 16))
    assert found([wide[:, 200 + offset : 200 + offset + _WIDTH] for offset in np.round(steps_px).astype(int)]) == {}


@pytest.mark.parametrize("speed_px", [2, 10, 40, 80])
def test_something_that_passes_by_is_none(speed_px: int) -> None:
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    frames = [np.where((y - 45) ** 2 + (x - (i * speed_px) % 190 + 15) ** 2 < 225, 0.9, 0.2) for i in range(20)]
    assert found(frames) == {}


def test_a_cut_is_none() -> None:
    assert found(pan(8, 2, seed=1) + pan(8, 2, seed=2)) == {}
    assert found([frame * 0.1 for frame in pan(8, 2, seed=1)] + pan(8, 2, seed=2)) == {}
    assert found(pan(8, 2, seed=1) + pan(3, 2, seed=2) + pan(8, 2, seed=3)) == {}


def test_steady_flicker_is_none() -> None:
    assert found([frame * (0.4 if i % 2 else 1) for i, frame in enumerate(pan(16, 2))]) == {}


def test_stills_are_no_film() -> None:
    assert found([landscape(seed)[:, :_WIDTH] for seed in range(8)]) == {}


def test_nothing_is_said_before_the_neighbours_are_known() -> None:
    frames = pan(30, 2)
    frames[10] = WHITE
    known = {frame: glance(frames[frame]) for frame in (0, 10, 29)}
    assert kinds(flaws_in_sequence(range(30), known)) == {}
    known |= {frame: glance(frames[frame]) for frame in (9, 11)}
    assert kinds(flaws_in_sequence(range(30), known)) == {10: [FlawKind.OUTLIER]}


def test_neighbours_are_those_of_the_film_whatever_their_numbers() -> None:
    frames = pan(6, 2)
    frames[2] = WHITE
    numbers = [-10, -5, 0, 5, 10, 15]
    known = dict(zip(numbers, map(glance, frames), strict=True))
    assert kinds(flaws_in_sequence(numbers, known)) == {0: [FlawKind.OUTLIER]}


# --- black ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 1 / 2.2])  # of display values, of light
@pytest.mark.parametrize("count", [4, 12, 60])
def test_a_fade_is_excused(count: int, power: float) -> None:
    frames = faded(pan(70, 1), count, power)
    assert frames[0].max() == 0
    assert found(frames) == {}
    assert found(frames[::-1]) == {}
    assert found([BLACK] * 5 + frames) == {}
    assert found(frames[::-1] + [BLACK] * 3 + frames) == {}


def test_black_without_a_fade_is_told() -> None:
    assert set(found([BLACK] * 5)) == {0, 1, 2, 3, 4}
    assert found([BLACK] * 3 + pan(10, 1)) == {frame: [FlawKind.BLACK] for frame in range(3)}


def test_a_black_chunk_in_a_film_is_told() -> None:
    frames = pan(20, 1)
    frames[8:12] = [BLACK] * 4
    assert found(frames) == {frame: [FlawKind.BLACK] for frame in range(8, 12)}


def test_black_is_told_where_a_film_gets_slowly_brighter() -> None:
    frames = [frame * (0.3 + i / 30) for i, frame in enumerate(pan(20, 1))]
    frames[8] = BLACK
    assert FlawKind.BLACK in found(frames)[8]


def test_black_in_a_dark_film_is_told() -> None:
    frames = [frame * 0.08 for frame in pan(14, 2, noise=0.002)]
    frames[6] = BLACK
    assert found(frames) == {6: [FlawKind.BLACK]}


def test_black_is_told_while_its_neighbours_are_not_known() -> None:
    frames = faded(pan(20, 1), 12, 1)
    assert kinds(flaws_in_sequence(range(20), {0: glance(frames[0]), 10: glance(frames[10])})) == {0: [FlawKind.BLACK]}


def test_other_flaws_stay() -> None:
    pink = Flaw(kind=FlawKind.PINK, message="pink")
    own = {frame: Glance(impression=glance(grey).impression, flaws=(pink,)) for frame, grey in enumerate(pan(5, 1))}
    assert flaws_in_sequence(range(5), own) == dict.fromkeys(range(5), (pink,))
