"""A picture that fills in: what there is of a frame whose parts are still being rendered, small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from renderfarm.domain.parts import Part, SampleRange, Tile
from renderfarm.errors import BadPicture
from renderfarm.media.display import Display
from renderfarm.media.merging import PartFile, held_region
from renderfarm.media.pictures import Floats, Picture, open_picture
from renderfarm.media.thumbnails import over_checkerboard, small_picture, write_colours
from renderfarm.media.whole_files import whole_file

#: Of what is not there yet: a checkerboard, darker than the one below what is transparent.
_MISSING_PX, _MISSING = 8, (0.09, 0.13)
_CHANNELS = ("R", "G", "B", "A")

Size = tuple[int, int]
"""Width and height in pixels."""


def shrink_part(file: PartFile, target: Path, *, whole: Size, small: Size) -> None:
    """Write a part's beauty, without its rim, as large as its place in a small picture is: an EXR of linear light.

    Args:
        file: the part, as the unit's script writes it.
        target: an ``.exr``; it appears when it is whole. A tile too low for a row of the small picture leaves it empty.
        whole: size of the picture that it is a part of.
        small: size of the small picture.

    Raises:
        BadPicture: the file is truncated, or not of this picture.
        OSError: it cannot be read, or the target not written.
    """
    columns, rows = _place(file.part, whole, small)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    if 0 in size:
        target.touch()
        return
    shrunk = small_picture(_without_rim(file, whole), size)
    alpha = shrunk.alpha()
    opaque = np.ones((size[1], size[0]), np.float32)
    pixels = np.dstack([shrunk.colours(premultiplied=True), opaque if alpha is None else alpha])
    spec = oiio.ImageSpec(*size, len(_CHANNELS), oiio.FLOAT)
    spec.channelnames = _CHANNELS
    with whole_file(target) as unfinished:
        output = oiio.ImageOutput.create(str(unfinished))
        try:
            if not (output.open(str(unfinished), spec) and output.write_image(pixels) and output.close()):
                raise OSError(f"cannot write {target}: {' '.join(output.geterror().split())}")
        finally:
            output.close()


def preview(parts: Sequence[PartFile], target: Path, *, whole: Size, small: Size, display: Display | None) -> None:
    """Write what there is of a picture: tiles in their places, the mean of sample ranges; the rest is dark checks.

    Args:
        parts: what ``shrink_part`` has written, in any order; none: nothing is there yet.
        target: ``.webp``, ``.jpg`` or ``.ppm``; it appears when it is whole.
        whole: size of the picture.
        small: size of what is written.
        display: how linear light is shown; None: by the plain sRGB curve.

    Raises:
        BadPicture: a part is truncated.
        OSError: a part cannot be read, or the target not written.
    """
    width, height = small
    light = np.zeros((height, width, len(_CHANNELS)), np.float32)
    samples = np.zeros((height, width, 1), np.float32)
    for file in parts:
        columns, rows = _place(file.part, whole, small)
        if columns.start == columns.stop or rows.start == rows.stop:
            continue
        count = file.part.count if isinstance(file.part, SampleRange) else 1
        light[rows, columns] += open_picture(file.path).floats() * np.float32(count)
        samples[rows, columns] += count
    mean = np.divide(light, samples, out=light, where=samples > 0)
    shown = over_checkerboard(Picture(pixels=mean, channels=_CHANNELS, is_linear=True, is_premultiplied=True), display)
    write_colours(np.where(samples > 0, shown, _missing(width, height)), target)


def _place(part: Part, whole: Size, small: Size) -> tuple[slice, slice]:
    """Return a part's columns and rows, counted from the top, in the small picture: every pixel is one tile's."""
    if isinstance(part, SampleRange):
        return slice(0, small[0]), slice(0, small[1])
    across, down = small[0] / whole[0], small[1] / whole[1]
    columns = slice(round(part.x0_px * across), round(part.x1_px * across))
    return columns, slice(round((whole[1] - part.y1_px) * down), round((whole[1] - part.y0_px) * down))


def _without_rim(file: PartFile, whole: Size) -> Picture:
    picture = open_picture(file.path)
    region = held_region(file.part, picture.width_px, picture.height_px, *whole)
    if region is None:
        raise BadPicture(f"{file.path.name} is {picture.width_px} x {picture.height_px} pixels, not {file.part}")
    if not isinstance(file.part, Tile):
        return picture
    left_px, top_px = file.part.x0_px - region.x0_px, region.y1_px - file.part.y1_px
    right_px, bottom_px = file.part.x1_px - region.x0_px, region.y1_px - file.part.y0_px
    return replace(picture, pixels=picture.pixels[top_px:bottom_px, left_px:right_px])


def _missing(width: int, height: int) -> Floats:
    rows, columns = np.indices((height, width)) // _MISSING_PX
    board: NDArray[np.float64] = np.where((rows + columns) % 2 == 0, *_MISSING)
    return np.repeat(board[:, :, None], 3, axis=2).astype(np.float32)
