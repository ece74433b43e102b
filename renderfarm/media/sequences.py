"""What a frame's neighbours tell of it: an outlier among them, or black because the film fades there.

Frames are compared by impressions, tiny grey pictures that are cheap to keep: camera moves change them little from
frame to frame, a wrong frame changes them at once and back again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from renderfarm.domain.flaws import Flaw, FlawKind, Glance
from renderfarm.media.display import srgb_encoded
from renderfarm.media.pictures import Floats, Picture

__all__ = ["IMPRESSION_PX", "Glance", "flaws_in_sequence", "impression"]

#: Width and height of an impression, whatever the picture's shape: fine enough for motion, coarse enough for noise.
IMPRESSION_PX = (32, 18)
#: Some dozens for each of the impression's.
_PIXELS_LOOKED_AT = 40_000
#: The largest number that 16 bits hold.
_LIGHT_MAX = 65504.0
#: Of display red, green and blue (ITU-R BT.709).
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)

#: Frames looked at before and after the one in question; what is usual is taken from twice as many.
_REACH = 3
#: An outlier is farther from both sides than this, on average over the picture, where black to white is 1.
_DISTANCE_MIN = 0.08
#: And so many times farther than the two sides are from each other, and than a frame usually is from the next. By trial
#: on made-up camera moves: 3 of 4320 good frames were outliers, 11 of 1440 where the camera jumps by a thirtieth of the
#: picture each frame. Of wrong frames in quick moves, all of 80 black ones were, and 210 of 320 others.
_TIMES_SIDES, _TIMES_USUAL = 1.75, 3.0
#: At an end of the film there is one side only, and the frame may be a shot of its own.
_DISTANCE_MIN_AT_END = 0.15
#: A film fades where its first step out of black is at most so many times its second: 1 where display values rise
#: evenly, 2.7 where light does (by the sRGB curve).
_TIMES_SECOND_STEP = 3.0
#: Rounded 8-bit values of black, dithering included.
_BLACK_MAX = 1


def impression(picture: Picture) -> bytes:
    """Return a picture's luminance at 32 x 18 pixels, one byte each, row by row."""
    width, height = IMPRESSION_PX
    picture = picture.sample(_PIXELS_LOOKED_AT)
    colours = picture.colours(premultiplied=True)
    if picture.is_linear:
        # In place, as new memory costs more than what is done with it. What is not a number counts for none.
        light = np.fmax(colours, 0)
        np.fmin(light, np.float32(_LIGHT_MAX), out=light)
        np.divide(light, 1 + light, out=light)
        # As roots they are about display values, in which what glares counts for little; and roots take no time.
        roots = _shrunk(np.sqrt(light, out=light), width, height)
        means = srgb_encoded(roots * roots) @ _LUMA
    else:
        means = _shrunk((colours @ _LUMA)[:, :, None], width, height)[:, :, 0]
    return bytes(np.round(means * 255).astype(np.uint8))


def _shrunk(values: Floats, width: int, height: int) -> Floats:
    """Return the averages of a picture's parts, shape (height, width, channels)."""
    full_height, full_width, channels = values.shape
    # Not by matrix products: their library has threads, which spin for a while when they are done (OpenBLAS).
    lines = np.einsum("ny,yx->nx", _averages(height, full_height), values.reshape(full_height, -1))
    # einsum is slow where what it sums over does not lie side by side.
    by_channel = np.ascontiguousarray(lines.reshape(height, full_width, channels).transpose(0, 2, 1))
    means: Floats = np.einsum("ncx,mx->nmc", by_channel, _averages(width, full_width))
    return means


@lru_cache(maxsize=16)
def _averages(count: int, pixels: int) -> Floats:
    """Return what makes ``count`` averages of a row of pixels, shape (count, pixels).

    They are those of runs that cover all pixels and may overlap; with fewer pixels than that they repeat.
    """
    edges = np.arange(count + 1) * pixels / count
    weights = np.zeros((count, pixels), np.float32)
    for row, (a, b) in zip(weights, pairwise(edges), strict=True):
        first, end = int(a), max(int(np.ceil(b)), int(a) + 1)
        row[first:end] = 1 / (end - first)
    return weights


def flaws_in_sequence(frames: Sequence[int], glances: Mapping[int, Glance]) -> dict[int, tuple[Flaw, ...]]:
    """Return the flaws of each known frame in the light of its neighbours: fades excused, outliers added.

    Nothing is added or excused where the neighbours are not known yet. Neither a cut, nor a fade, nor steady flicker is
    an outlier; a single flash is, since nobody can tell it from a wrong frame.

    Args:
        frames: all frames of one camera's film, in order.
        glances: those that are known.
    """
    film = _Film(frames, glances)
    return {frame: film.flaws(index) for index, frame in enumerate(frames) if frame in glances}


class _Film:
    def __init__(self, frames: Sequence[int], glances: Mapping[int, Glance]) -> None:
        self._glances = [glances.get(frame) for frame in frames]
        self._seen = [_seen(glance) for glance in self._glances]
        before, after = reversed(_fades(self._seen[::-1])), _fades(self._seen)
        self._is_fade = [any(sides) for sides in zip(before, after, strict=True)]

    def flaws(self, index: int) -> tuple[Flaw, ...]:
        glance = self._glances[index]
        assert glance is not None
        own = tuple(flaw for flaw in glance.flaws if flaw.kind is not FlawKind.BLACK or not self._is_fade[index])
        if not self._is_outlier(index):
            return own
        return (*own, Flaw(kind=FlawKind.OUTLIER, message="the picture is unlike the frames before and after it"))

    # --- outliers -------------------------------------------------------------------------------------------

    def _is_outlier(self, index: int) -> bool:
        seen = self._seen[index]
        before, after = self._side(index, -1, _REACH), self._side(index, 1, _REACH)
        if seen is None:
            return False
        if before and after:
            left, right = np.median(before, axis=0), np.median(after, axis=0)
            # The nearest frames count as well: after a cut, or in quick motion, they are what is most alike.
            far = min(_distance(seen, side) for side in (left, right, before[0], after[0]))
            sides = min(_distance(left, right), _distance(before[0], after[0]))
            return far > max(_DISTANCE_MIN, _TIMES_SIDES * sides, _TIMES_USUAL * self._usual(index))
        only = before or after
        if len(only) < _REACH or 0 < index < len(self._seen) - 1:
            return False
        usual = max(_distance(a, b) for a, b in pairwise(only))
        return _distance(seen, only[0]) > max(_DISTANCE_MIN_AT_END, _TIMES_USUAL * usual)

    def _side(self, index: int, step: int, reach: int) -> list[Floats]:
        """Return what is seen next to a frame on one side, the nearest first, as far as it is known."""
        found: list[Floats] = []
        for distance in range(1, reach + 1):
            other = index + step * distance
            seen = self._seen[other] if 0 <= other < len(self._seen) else None
            if seen is None:
                break
            found.append(seen)
        return found

    def _usual(self, index: int) -> float:
        """Return how far frames hereabouts usually are from their next, that one left out."""
        changes = [
            _distance(a, b)
            for step in (-1, 1)
            for a, b in pairwise(self._side(index, step, 2 * _REACH))
        ]  # fmt: skip
        return float(np.median(changes)) if changes else 0.0


def _fades(seen: Sequence[Floats | None]) -> list[bool]:
    """Tell of each frame whether the film comes out of the dark behind it, as far as it is known."""
    fades: list[bool] = []
    first, second = 0.0, 0.0
    for one in reversed(seen):
        fades.append(first < second and first <= _TIMES_SECOND_STEP * (second - first))
        if one is None:
            first, second = 0.0, 0.0
        elif not _is_black(one):
            first, second = float(one.mean()), first
    return fades[::-1]


def _seen(glance: Glance | None) -> Floats | None:
    if glance is None:
        return None
    width, height = IMPRESSION_PX
    return np.frombuffer(glance.impression, np.uint8).reshape(height, width).astype(np.float32) / np.float32(255)


def _is_black(seen: Floats) -> bool:
    return bool(seen.max() * 255 <= _BLACK_MAX)


def _distance(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).mean())
