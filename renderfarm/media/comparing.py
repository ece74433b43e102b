"""Two picture files, compared channel by channel in every layer: by their bits, and by how far their values are apart.

A few rows are in memory at a time, whatever the pictures' size. What their headers say (dates, render times) counts
for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renderfarm.media.pictures import checked, opened, part_spec

_ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class GroupDifference:
    """How far one group of channels is apart: ``ViewLayer.Combined``, or the picture of a file without layers."""

    group: str
    """Empty for a file without layers."""
    max_absolute: float
    """The largest difference of two values: integers count from 0 to 1, floats as they are. Infinite where only one of
    them is a number, or only one infinite."""
    channel: str
    """Where that is: the channel,"""
    x_px: int
    """the column, from the left,"""
    y_px: int
    """and the row, from the top."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What two pictures differ in."""

    is_identical: bool
    """Every channel of every layer has the same bits. NaN counts as equal to NaN; minus zero is not zero."""
    unlike: str | None
    """Why there is nothing to compare: other sizes, channels or bit depths; None where there is."""
    groups: tuple[GroupDifference, ...]
    """Only those whose values differ, the farthest apart first."""

    @property
    def max_absolute(self) -> float:
        """The largest difference of any two values; infinite for unlike pictures."""
        if self.unlike is not None:
            return math.inf
        return self.groups[0].max_absolute if self.groups else 0.0

    def __str__(self) -> str:
        if self.unlike is not None:
            return self.unlike
        if not self.groups:
            return "the same pixels" if self.is_identical else "the same values"
        worst = self.groups[0]
        name = f"{worst.group}.{worst.channel}".lstrip(".")
        return f"up to {worst.max_absolute:.3g} apart, in {name} at column {worst.x_px}, row {worst.y_px}"


def difference(a: Path, b: Path) -> Difference:
    """Compare two picture files.

    Raises:
        BadPicture: one of them is truncated, corrupt, or no picture.
        OSError: one of them cannot be read at all.
    """
    with opened(a) as source_a, opened(b) as source_b:
        is_identical = True
        groups: dict[str, GroupDifference] = {}
        part = 0
        while True:
            spec_a, spec_b = part_spec(source_a, part), part_spec(source_b, part)
            unlike = _unlike(spec_a, spec_b)
            if unlike is not None:
                return Difference(is_identical=False, unlike=unlike, groups=())
            if spec_a is None:
                break
            for top_px, rows_a, rows_b in zip(
                range(0, spec_a.height, _ROWS_AT_ONCE),
                _strips(a, source_a, part, spec_a),
                _strips(b, source_b, part, spec_b),
                strict=True,
            ):
                if not _same_bits(rows_a, rows_b):
                    is_identical = False
                    _note(groups, spec_a.channelnames, top_px, _distance(rows_a, rows_b))
            part += 1
    ranked = tuple(sorted(groups.values(), key=lambda group: (-group.max_absolute, group.group)))
    return Difference(is_identical=is_identical, unlike=None, groups=ranked)


def _unlike(a: Any, b: Any) -> str | None:
    """Tell what keeps two parts (``ImageSpec``, or None where there is none) from being compared."""
    if a is None or b is None:
        return None if a is b else "only one of them has more parts"
    if (a.width, a.height, a.x, a.y) != (b.width, b.height, b.x, b.y):
        return f"the sizes differ: {_size(a)} and {_size(b)}"
    if a.channelnames != b.channelnames:
        only_one = sorted(set(a.channelnames) ^ set(b.channelnames))
        return f"the channels differ: {', '.join(only_one)[:200] or 'in their order'}"
    if _depths(a) != _depths(b):
        return f"the bit depths differ: {a.format} and {b.format}"
    return None


def _size(spec: Any) -> str:
    offset = f" at {spec.x}, {spec.y}" if (spec.x, spec.y) != (0, 0) else ""
    return f"{spec.width} x {spec.height}{offset}"


def _depths(spec: Any) -> list[str]:
    return [str(spec.channelformat(index)) for index in range(spec.nchannels)]


def _strips(path: Path, source: Any, part: int, spec: Any) -> Iterator[NDArray[Any]]:
    """Give the rows of a part, some at a time, in the depth of its deepest channel."""
    for first in range(spec.y, spec.y + spec.height, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, spec.y + spec.height)
        rows = checked(path, source, source.read_scanlines(part, 0, first, last, 0, 0, spec.nchannels, spec.format))
        yield rows.reshape(last - first, spec.width, spec.nchannels)


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    bits = np.dtype(f"u{a.dtype.itemsize}")
    same = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    if a.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    return bool(same.all())


def _distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    scale = np.iinfo(a.dtype).max if a.dtype.kind == "u" else 1
    left, right = a.astype(np.float64), b.astype(np.float64)
    # Equal infinities have no difference, and neither have two NaN.
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(left - right) / scale)
    return np.nan_to_num(distance, nan=math.inf, posinf=math.inf)


def _note(
    groups: dict[str, GroupDifference], names: tuple[str, ...], top_px: int, distance: NDArray[np.float64]
) -> None:
    """Keep the farthest of each group of channels."""
    farthest = distance.reshape(-1, len(names)).argmax(axis=0)
    for index, name in enumerate(names):
        group, _, channel = name.rpartition(".")
        y_px, x_px = divmod(int(farthest[index]), distance.shape[1])
        far = float(distance[y_px, x_px, index])
        known = groups.get(group)
        if far > (known.max_absolute if known else 0.0):
            groups[group] = GroupDifference(
                group=group, max_absolute=far, channel=channel, x_px=x_px, y_px=top_px + y_px
            )
