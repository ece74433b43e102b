"""A small picture in a terminal: two pixels a character, the upper half block's colour and its background's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from renderfarm.errors import BadPicture

_HEADER = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")
_UPPER_HALF = "▀"
#: Fewer columns or lines show nothing that anybody could recognise.
_COLUMNS_MIN, _LINES_MIN = 40, 8
_COLUMNS_MAX = 80
_COLOURS = ("256", "truecolor")


class HalfBlocks:
    """A picture for ``rich``, as many columns wide as it has pixels, and half as many lines high."""

    def __init__(self, ppm: bytes) -> None:
        """Take a binary PPM of 8 bits. Raises BadPicture."""
        header = _HEADER.match(ppm)
        if header is None:
            raise BadPicture("not a binary PPM of 8 bits")
        self.width_px, self.height_px = int(header[1]), int(header[2])
        self._pixels = ppm[header.end() :]
        if len(self._pixels) != self.width_px * self.height_px * 3:
            raise BadPicture(f"a PPM of {self.width_px} x {self.height_px} pixels has {len(self._pixels)} bytes")
        self._segments = [*self._lines()]

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield from self._segments

    def _lines(self) -> Iterator[Segment]:
        for top in range(0, self.height_px, 2):
            pairs = zip(self._row(top), self._row(top + 1), strict=True)
            for (upper, lower), run in groupby(pairs):
                yield Segment(_UPPER_HALF * len(list(run)), _style(upper, lower))
            yield Segment.line()

    def _row(self, index: int) -> list[bytes | None]:
        """Return a row's pixels; below the last row there is nothing."""
        if index >= self.height_px:
            return [None] * self.width_px
        start = index * self.width_px * 3
        return [self._pixels[at : at + 3] for at in range(start, start + self.width_px * 3, 3)]


def room_px(console: Console, lines_taken: int) -> tuple[int, int] | None:
    """Return width and height of the largest picture that a terminal shows; None: it is too small, or has few colours.

    Args:
        console: the terminal.
        lines_taken: lines that something else needs.
    """
    columns, lines = min(console.width - 1, _COLUMNS_MAX), console.height - lines_taken
    if not console.is_terminal or console.color_system not in _COLOURS:
        return None
    return (columns, 2 * lines) if columns >= _COLUMNS_MIN and lines >= _LINES_MIN else None


@lru_cache(maxsize=10_000)
def _style(upper: bytes | None, lower: bytes | None) -> Style:
    return Style(color=_colour(upper), bgcolor=_colour(lower))


def _colour(pixel: bytes | None) -> Color | None:
    return None if pixel is None else Color.from_rgb(*pixel)
