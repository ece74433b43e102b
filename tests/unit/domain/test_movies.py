"""Frame rates and movie formats."""

from __future__ import annotations

import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.movies import MovieFormat, frame_rate
from renderfarm.errors import InvalidSettings


def single(number: float) -> float:
    """Return a number as Blender keeps it: in 32 bits."""
    kept: float = struct.unpack("f", struct.pack("f", number))[0]
    return kept


@pytest.mark.parametrize(
    ("fps", "base", "rate"),
    [
        (24, 1, Fraction(24)),
        (24, 1.001, Fraction(24000, 1001)),
        (30, 1.001, Fraction(30000, 1001)),
        (60, 1.001, Fraction(60000, 1001)),
        (25, 2, Fraction(25, 2)),
        (12, 0.5, Fraction(24)),
        (1, 3, Fraction(1, 3)),
    ],
)
def test_blenders_rates_are_exact(fps: int, base: float, rate: Fraction) -> None:
    assert frame_rate(fps / single(base), single(base)) == rate


@given(fps=st.integers(1, 32767), base=st.integers(1, 99_999))
def test_any_rate_that_can_be_typed_is_exact(fps: int, base: int) -> None:
    typed = Fraction(base, 1000)
    assert frame_rate(fps / single(float(typed)), single(float(typed))) == fps / typed


@pytest.mark.parametrize(("fps", "base"), [(0, 1), (-24, 1), (24, 0), (float("nan"), 1), (float("inf"), 1)])
def test_no_rate(fps: float, base: float) -> None:
    with pytest.raises(InvalidSettings):
        frame_rate(fps, base)


def test_every_format_has_a_suffix_and_a_media_type() -> None:
    assert {movie.suffix: movie.media_type for movie in MovieFormat} == {
        ".mp4": "video/mp4",
        ".mov": "video/quicktime",
        ".webm": "video/webm",
        ".gif": "image/gif",
    }
