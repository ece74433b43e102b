"""Pictures as the farm stores them, read whole or not at all.

PNG, JPEG, TIFF, WebP and EXR in Blender's ways: 8 and 16-bit files hold display colours, EXR files linear light; and
alpha is not multiplied into the colours, except in EXR and in Blender's 16-bit TIFF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from renderfarm.errors import BadPicture

Floats = NDArray[np.float32]

#: What the last bytes of a whole file must be, by the first ones. The other formats' readers notice a lost end; for
#: JPEG grey pixels stand in for it (all measured, cut at every byte: tests/unit/media/test_pictures.py).
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
#: The layer that Blender's compositor writes, if it is used: the picture that a plain file would have.
_COMPOSITE = "Composite"
_GREYS = ("Y", "V")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """The beauty of a picture file: the one that people mean when they say picture."""

    pixels: NDArray[Any]
    """Shape (height, width, channels), top row first; uint8, uint16, float16 or float32 as in the file."""
    channels: tuple[str, ...]
    """``("Y",)`` for grey, ``("R", "G", "B")``, or either with ``"A"`` behind it."""
    is_linear: bool
    """Linear light, not display colours."""
    is_premultiplied: bool
    """The colours have been multiplied by alpha."""

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def depth_bits(self) -> int:
        """Bits of one channel: 8, 16 or 32."""
        return int(self.pixels.dtype.itemsize * 8)

    @property
    def one(self) -> float:
        """What stands for 1 in the file."""
        return 1.0 if self.pixels.dtype.kind == "f" else float(np.iinfo(self.pixels.dtype).max)

    def sample(self, count: int) -> Picture:
        """Return a picture of about so many of the pixels, taken evenly; of all, if there are no more."""
        step = max(1, round((self.width_px * self.height_px / count) ** 0.5))
        return replace(self, pixels=self.pixels[::step, ::step])

    def floats(self) -> Floats:
        """Return all channels as 32-bit floats: integers from 0 to 1, floats as they are."""
        if self.pixels.dtype.kind == "u":
            return self.pixels.astype(np.float32) / np.float32(self.one)
        return self.pixels.astype(np.float32, copy=False)

    def colours(self, *, premultiplied: bool) -> Floats:
        """Return red, green and blue, shape (height, width, 3), with or without alpha multiplied into them."""
        floats = self.floats()
        colours = floats[:, :, :3] if "R" in self.channels else np.repeat(floats[:, :, :1], 3, axis=2)
        if "A" not in self.channels or premultiplied == self.is_premultiplied:
            return np.ascontiguousarray(colours)
        alpha = floats[:, :, -1:]
        if premultiplied:
            return colours * alpha
        # What is fully transparent keeps its colours, which then are light that was added.
        return np.divide(colours, alpha, out=np.array(colours), where=alpha > 0)

    def alpha(self) -> Floats | None:
        """Return alpha, shape (height, width), from 0 to 1; None where the file has none."""
        return self.floats()[:, :, -1] if "A" in self.channels else None


def open_picture(path: Path) -> Picture:
    """Read a picture file. Of a multilayer EXR: what the compositor made, else the first layer's Combined.

    The first is the first in the file: Blender 4 sorts layers by name, Blender 5 has them as the scene does. Of several
    views (left and right), the first is taken as well.

    Raises:
        BadPicture: truncated, corrupt, or no picture.
        OSError: the file cannot be read at all.
    """
    with opened(path) as source:
        part, indices = _beauty(source)
        spec = part_spec(source, part)
        first, last = min(indices), max(indices) + 1
        pixels = checked(path, source, source.read_image(part, 0, first, last, spec.format))
        pixels = pixels.reshape(spec.height, spec.width, -1)
        if indices != list(range(first, last)):
            pixels = np.ascontiguousarray(pixels[:, :, [index - first for index in indices]])
        has_alpha = len(indices) in (2, 4)
        return Picture(
            pixels=pixels,
            channels=(("R", "G", "B") if len(indices) > 2 else ("Y",)) + (("A",) if has_alpha else ()),
            is_linear=spec.format.basetype in (oiio.HALF, oiio.FLOAT),
            is_premultiplied=has_alpha and _is_premultiplied(source.format_name(), spec),
        )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Give an ``OpenImageIO.ImageInput`` that leaves alpha alone.

    Raises:
        BadPicture: no picture, or its end is missing. What is missing before shows when pixels are read.
        OSError: the file cannot be read at all.
    """
    _check_end(path)
    hints = oiio.ImageSpec()
    hints.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(str(path), hints)
    if source is None:
        raise _bad_picture(path, oiio.geterror())
    try:
        yield source
    finally:
        source.close()


def part_spec(source: Any, part: int) -> Any:
    """Return the ``ImageSpec`` of a part, or None if there are no more parts. Only EXR files have more than one."""
    # Looking for a second part spoils the WebP reader for the first.
    if (part == 0 or source.format_name() == "openexr") and source.seek_subimage(part, 0):
        return source.spec()
    source.geterror()  # forgets it: that there are no more is no error
    return None


def checked(path: Path, source: Any, pixels: NDArray[Any] | None) -> NDArray[Any]:
    """Return what has been read, if the reader is content: of a short TIFF it gives half a picture, and complains.

    Raises:
        BadPicture: it is not.
    """
    if pixels is None or source.has_error:
        raise _bad_picture(path, source.geterror())
    return pixels


def _bad_picture(path: Path, reason: str) -> BadPicture:
    said = " ".join(reason.replace(str(path), path.name).split())
    return BadPicture(f"{path.name} is truncated, corrupt or no picture: {said or 'no reason given'}")


def _check_end(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
        for start, end in _ENDS.items():
            if head.startswith(start):
                file.seek(0, 2)
                file.seek(max(0, file.tell() - len(end)))
                if file.read() != end:
                    raise _bad_picture(path, "its end is missing")


def _is_premultiplied(file_format: str, spec: Any) -> bool:
    if file_format == "tiff":
        return not spec.get_int_attribute("oiio:UnassociatedAlpha", 0)
    return file_format == "openexr"


# --- finding the beauty ---------------------------------------------------------------------------------------


def _beauty(source: Any) -> tuple[int, list[int]]:
    """Return the part and the channels in it of the beauty: grey or colours, then alpha if there is any."""
    candidates: list[tuple[tuple[bool, bool, bool], int, list[int]]] = []
    part = 0
    while (spec := part_spec(source, part)) is not None:
        groups: dict[tuple[str, ...], dict[str, int]] = {}
        for index, name in enumerate(spec.channelnames):
            *layer, channel = name.split(".")
            groups.setdefault(tuple(layer), {}).setdefault(channel.upper(), index)
        for layer, channels in groups.items():
            candidates.append((_rank(layer, channels), part, _colour_channels(channels)))
        part += 1
    # min takes the first of equals.
    _, part, indices = min(candidates, key=lambda candidate: candidate[0])
    return part, indices


def _rank(layer: Sequence[str], channels: dict[str, int]) -> tuple[bool, bool, bool]:
    """Return what sorts a group of channels, the better before the worse.

    Blender's names are ``Layer.Pass.channel``, or ``Layer.Pass.view.channel`` where there are several views.
    """
    is_beauty = not layer or "Combined" in layer[-2:]
    return (not is_beauty, _COMPOSITE not in layer[:1], "R" not in channels)


def _colour_channels(channels: dict[str, int]) -> list[int]:
    grey = next((channels[name] for name in _GREYS if name in channels), next(iter(channels.values())))
    colours = [channels[name] for name in "RGB"] if {"R", "G", "B"} <= channels.keys() else [grey]
    return colours + ([channels["A"]] if "A" in channels and channels["A"] not in colours else [])
