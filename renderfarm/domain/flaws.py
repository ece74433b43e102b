"""What may be wrong with a picture, and what is kept of a picture to tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: Files that can be looked at. Of other formats that Blender writes nothing can be said.
JUDGED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".exr"})


class FlawKind(StrEnum):
    BLACK = "black"
    TRANSPARENT = "transparent"
    NOT_A_NUMBER = "not_a_number"
    PINK = "pink"
    TRUNCATED = "truncated"
    OUTLIER = "outlier"


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """A hint: what a picture shows may be what the artist wants."""

    kind: FlawKind
    message: str
    """One line, for people."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What is kept of a frame for its neighbours' sake."""

    impression: bytes
    """The picture's luminance at 32 x 18 pixels, one byte each, row by row."""
    flaws: tuple[Flaw, ...] = ()
    """The frame's own, which a look at this picture alone shows."""
