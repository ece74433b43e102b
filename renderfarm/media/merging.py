"""Parts of one frame, multilayer EXR files as the unit's script writes them, put together into one.

Everything is kept: every channel of every layer in 32 bits, and what Cycles says of itself in the header. A few rows
are in memory at a time, whatever the picture's size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from renderfarm.domain.parts import OVERSCAN_PX, Part, SampleRange, Tile
from renderfarm.errors import BadPicture

#: A multiple of the 16 lines that the parts' ZIP compression takes together.
_ROWS_AT_ONCE = 64
#: What must be the same in all parts of a frame. Cryptomatte's manifests say which objects there are.
_SAME = re.compile(r"Frame|Scene|Camera|cryptomatte/.*")
_TIME = re.compile(r"cycles\..*\.(render|synchronization|total)_time")
_SAMPLES = re.compile(r"cycles\..*\.samples")

Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """A part and the file that holds it."""

    part: Part
    path: Path


def merge_parts(files: Sequence[PartFile], target: Path, *, width_px: int, height_px: int) -> None:
    """Write one multilayer EXR of the whole picture: 32-bit floats without compression, as ``merge_unit`` reads them.

    Tiles are placed without their rims, sample ranges averaged by their counts. ``target`` appears when it is whole.

    Args:
        files: the parts, in any order.
        target: the file to write.
        width_px: width of the whole picture.
        height_px: its height.

    Raises:
        BadPicture: a part is truncated, not of this picture, or of another scene than the others; or the parts do not
            cover the picture exactly once.
        OSError: the target cannot be written.
    """
    sources = [_Source.open(file, width_px, height_px) for file in files]
    try:
        _check_cover([file.part for file in files], width_px, height_px)
        _check_alike(sources)
        _write(sources, target, width_px, height_px)
    finally:
        for source in sources:
            source.input.close()


# --- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An open part, and where its pixels are in the picture."""

    part: Part
    path: Path
    input: Any
    spec: Any
    region: Tile
    """What the file holds, a tile's rim included."""

    @classmethod
    def open(cls, file: PartFile, width_px: int, height_px: int) -> _Source:
        source = oiio.ImageInput.open(str(file.path))
        if source is None:
            raise BadPicture(f"{file.path.name} is no picture: {_line(oiio.geterror())}")
        spec = source.spec()
        if source.seek_subimage(1, 0):
            source.close()
            raise BadPicture(f"{file.path.name} is made of several pictures")
        source.seek_subimage(0, 0)
        region = held_region(file.part, spec.width, spec.height, width_px, height_px)
        if region is None:
            source.close()
            raise BadPicture(f"{file.path.name} has {spec.width} x {spec.height} pixels, which is not {file.part}")
        return cls(part=file.part, path=file.path, input=source, spec=spec, region=region)

    def rows(self, top_px: int, count: int, height_px: int) -> Pixels:
        """Return rows of the picture, counted from its top, as far as the file's columns go."""
        first = top_px - (height_px - self.region.y1_px) + self.spec.y
        pixels = self.input.read_scanlines(0, 0, first, first + count, 0, 0, self.spec.nchannels, oiio.FLOAT)
        if pixels is None:
            raise BadPicture(f"{self.path.name} is truncated: {_line(self.input.geterror())}")
        whole: Pixels = pixels.reshape(count, self.spec.width, self.spec.nchannels)
        return whole


def held_region(part: Part, file_width_px: int, file_height_px: int, width_px: int, height_px: int) -> Tile | None:
    """Return what of the picture a file of this size holds; None if its size is none that the part may have."""
    tile = part if isinstance(part, Tile) else Tile(x0_px=0, y0_px=0, x1_px=width_px, y1_px=height_px)
    for margin_px in (0, OVERSCAN_PX):
        region = tile.grown(margin_px, width_px, height_px)
        if (region.x1_px - region.x0_px, region.y1_px - region.y0_px) == (file_width_px, file_height_px):
            return region
    return None


# --- checks --------------------------------------------------------------------------------------------------


def _check_cover(parts: Sequence[Part], width_px: int, height_px: int) -> None:
    """Raise BadPicture unless every pixel, or every sample, is in exactly one part."""
    ranges = sorted((part for part in parts if isinstance(part, SampleRange)), key=lambda part: part.first)
    tiles = [part for part in parts if isinstance(part, Tile)]
    if bool(ranges) == bool(tiles):
        raise BadPicture("a frame is merged from tiles or from sample ranges, and there is neither, or both")
    if ranges:
        ends = [0, *(part.first + part.count for part in ranges)]
        if [*(part.first for part in ranges), ranges[0].total] != ends or len({part.total for part in ranges}) > 1:
            raise BadPicture(f"the sample ranges do not make up {ranges[0].total} samples: {ranges}")
        return
    for one, other in combinations(tiles, 2):
        if one.x0_px < other.x1_px and other.x0_px < one.x1_px and one.y0_px < other.y1_px and other.y0_px < one.y1_px:
            raise BadPicture(f"two tiles overlap: {one} and {other}")
    covered_px = sum((tile.x1_px - tile.x0_px) * (tile.y1_px - tile.y0_px) for tile in tiles)
    if covered_px != width_px * height_px or any(tile.x1_px > width_px or tile.y1_px > height_px for tile in tiles):
        raise BadPicture(f"the tiles do not make up {width_px} x {height_px} pixels: {tiles}")


def _check_alike(sources: Sequence[_Source]) -> None:
    first, *others = sources
    for other in others:
        if other.spec.channelnames != first.spec.channelnames:
            odd = sorted(set(other.spec.channelnames) ^ set(first.spec.channelnames))
            raise BadPicture(f"{other.path.name} and {first.path.name} differ in channels: {', '.join(odd)[:200]}")
        for name in filter(_SAME.fullmatch, {attribute.name for attribute in first.spec.extra_attribs}):
            if first.spec.get_string_attribute(name) != other.spec.get_string_attribute(name):
                raise BadPicture(f"{other.path.name} and {first.path.name} differ in {name}")


# --- writing -------------------------------------------------------------------------------------------------


def _write(sources: Sequence[_Source], target: Path, width_px: int, height_px: int) -> None:
    unfinished = target.with_name(f".{target.name}.unfinished")
    output = oiio.ImageOutput.create("a.exr")
    try:
        if not output.open(str(unfinished), _whole_spec(sources, width_px, height_px)):
            raise OSError(f"cannot write {target}: {_line(output.geterror())}")
        for top_px, rows in _merged_rows(sources, width_px, height_px):
            if not output.write_scanlines(top_px, top_px + len(rows), 0, rows):
                raise OSError(f"cannot write {target}: {_line(output.geterror())}")
        if not output.close():
            raise OSError(f"cannot write {target}: {_line(output.geterror())}")
        os.replace(unfinished, target)  # noqa: PTH105
    finally:
        output.close()
        unfinished.unlink(missing_ok=True)


def _whole_spec(sources: Sequence[_Source], width_px: int, height_px: int) -> Any:
    """Return the first part's header made fit for the whole."""
    spec = oiio.ImageSpec(sources[0].spec)
    spec.x = spec.y = spec.full_x = spec.full_y = 0
    spec.width = spec.full_width = width_px
    spec.height = spec.full_height = height_px
    spec.attribute("compression", "none")
    for name in [attribute.name for attribute in spec.extra_attribs]:
        values = [source.spec.get_string_attribute(name) for source in sources]
        if _TIME.fullmatch(name):
            spec.attribute(name, _sum_of_times(values))
        elif _SAMPLES.fullmatch(name) and isinstance(sources[0].part, SampleRange):
            spec.attribute(name, str(sources[0].part.total))
    return spec


def _sum_of_times(values: Sequence[str]) -> str:
    """Return the sum of ``01:02:03.45`` or ``02:03.45``, as Blender writes them: what all parts took together."""
    seconds = 0.0
    for value in values:
        part = 0.0
        for number in value.split(":"):
            part = part * 60 + float(number)
        seconds += part
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{minutes:02}:{rest // 100:02}.{rest % 100:02}"
    return f"{hours:02}:{tail}" if hours else tail


def _merged_rows(sources: Sequence[_Source], width_px: int, height_px: int) -> Iterator[tuple[int, Pixels]]:
    """Give the picture's rows from the top, some at a time, with the number of the first."""
    for top_px in range(0, height_px, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, height_px - top_px)
        if isinstance(sources[0].part, SampleRange):
            yield top_px, _averaged_rows(sources, top_px, count, height_px)
        else:
            yield top_px, _placed_rows(sources, top_px, count, width_px, height_px)


def _placed_rows(sources: Sequence[_Source], top_px: int, count: int, width_px: int, height_px: int) -> Pixels:
    rows = np.empty((count, width_px, sources[0].spec.nchannels), np.float32)
    for source in sources:
        tile = source.part
        assert isinstance(tile, Tile)
        first = max(top_px, height_px - tile.y1_px)
        last = min(top_px + count, height_px - tile.y0_px)
        if first >= last:
            continue
        left = source.region.x0_px
        pixels = source.rows(first, last - first, height_px)
        rows[first - top_px : last - top_px, tile.x0_px : tile.x1_px] = pixels[:, tile.x0_px - left : tile.x1_px - left]
    return rows


def _averaged_rows(sources: Sequence[_Source], top_px: int, count: int, height_px: int) -> Pixels:
    """Return the mean of the samples of all parts. Summed in 64 bits, so that the order does not matter."""
    mean: NDArray[np.float64] | float = 0.0
    for source in sources:
        assert isinstance(source.part, SampleRange)
        share = source.part.count / source.part.total
        mean = mean + source.rows(top_px, count, height_px).astype(np.float64) * share
    return np.asarray(mean, np.float32)


def _line(text: str) -> str:
    return " ".join(text.split()) or "no reason given"
