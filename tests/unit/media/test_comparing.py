"""Comparing pictures: what differs, how much, and where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from renderfarm.errors import BadPicture
from renderfarm.media.comparing import Difference, difference
from tests.unit.media.picture_files import write, write_parts

_LAYERS = tuple(f"A.{name}" for name in ("Combined.R", "Combined.G", "Combined.B", "Depth.Z"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


def layers(seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).random((150, 7, 4)).astype(np.float32)


def compared(folder: Path, a: NDArray[Any], b: NDArray[Any], suffix: str = ".exr") -> Difference:
    names = _LAYERS if suffix == ".exr" else None
    return difference(write(folder / f"a{suffix}", a, names), write(folder / f"b{suffix}", b, names))


def test_the_same_pixels_are_identical(tmp_path: Path) -> None:
    found = compared(tmp_path, layers(), layers())
    assert found == Difference(is_identical=True, unlike=None, groups=())
    assert found.max_absolute == 0
    assert str(found) == "the same pixels"


@given(row=st.integers(0, 149), column=st.integers(0, 6), channel=st.integers(0, 3), by=st.floats(0.125, 8))
def test_one_changed_value_is_found_where_it_is(folder: Path, row: int, column: int, channel: int, by: float) -> None:
    changed = np.zeros_like(layers())
    changed[row, column, channel] = by
    (group,) = compared(folder, np.zeros_like(changed), changed).groups
    assert f"{group.group}.{group.channel}" == _LAYERS[channel]
    assert (group.x_px, group.y_px) == (column, row)
    assert group.max_absolute == np.float32(by)


def test_groups_are_told_apart_the_farthest_first(tmp_path: Path) -> None:
    changed = layers()
    changed[3, 4, 1] += 0.5
    changed[120, 2, 3] += 1.5
    found = compared(tmp_path, layers(), changed)
    assert not found.is_identical
    assert [(group.group, group.channel) for group in found.groups] == [("A.Depth", "Z"), ("A.Combined", "G")]
    assert found.max_absolute == pytest.approx(1.5)
    assert str(found) == "up to 1.5 apart, in A.Depth.Z at column 2, row 120"


@pytest.mark.parametrize(("depth", "step"), [("uint8", 1 / 255), ("uint16", 1 / 65535)])
def test_integers_count_from_0_to_1(tmp_path: Path, depth: str, step: float) -> None:
    a = np.zeros((4, 5, 3), depth)
    b = a.copy()
    b[2, 3, 1] = 1
    (group,) = compared(tmp_path, a, b, ".png").groups
    assert group.max_absolute == pytest.approx(step)
    assert (group.group, group.channel, group.x_px, group.y_px) == ("", "G", 3, 2)


# --- numbers that are none --------------------------------------------------------------------------------------


def with_value(value: float) -> NDArray[Any]:
    pixels = layers()
    pixels[1, 2, 3] = value
    return pixels


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_same_odd_numbers_are_identical(tmp_path: Path, value: float) -> None:
    found = compared(tmp_path, with_value(value), with_value(value))
    assert found.is_identical
    assert found.groups == ()


def test_nan_is_nan_whatever_its_bits(tmp_path: Path) -> None:
    other = with_value(0)
    other.view(np.uint32)[1, 2, 3] = 0xFFC00001
    assert compared(tmp_path, with_value(math.nan), other).is_identical


@pytest.mark.parametrize(
    ("a", "b"), [(math.nan, 1), (math.inf, 1), (math.inf, -math.inf), (math.nan, math.inf), (1, math.nan)]
)
def test_an_odd_number_is_infinitely_far_from_any_other(tmp_path: Path, a: float, b: float) -> None:
    found = compared(tmp_path, with_value(a), with_value(b))
    assert not found.is_identical
    assert found.max_absolute == math.inf


def test_minus_zero_is_another_number_of_the_same_value(tmp_path: Path) -> None:
    found = compared(tmp_path, with_value(0.0), with_value(-0.0))
    assert not found.is_identical
    assert found.max_absolute == 0
    assert str(found) == "the same values"


# --- unlike pictures --------------------------------------------------------------------------------------------


def test_other_sizes_are_told(tmp_path: Path) -> None:
    found = compared(tmp_path, layers(), layers()[:, :5])
    assert found.unlike == "the sizes differ: 7 x 150 and 5 x 150"
    assert found.max_absolute == math.inf
    assert str(found) == found.unlike


def test_other_channels_are_told(tmp_path: Path) -> None:
    a = write(tmp_path / "a.exr", layers(), _LAYERS)
    b = write(tmp_path / "b.exr", layers(), (*_LAYERS[:3], "A.Mist.Z"))
    assert difference(a, b).unlike == "the channels differ: A.Depth.Z, A.Mist.Z"


def test_other_depths_are_told(tmp_path: Path) -> None:
    a = write(tmp_path / "a.exr", layers(), _LAYERS)
    b = write(tmp_path / "b.exr", layers().astype(np.float16), _LAYERS)
    assert difference(a, b).unlike == "the bit depths differ: float and half"


def parts(depth: float) -> list[tuple[NDArray[Any], tuple[str, ...]]]:
    beauty = np.ones((4, 6, 3), np.float32), ("A.Combined.R", "A.Combined.G", "A.Combined.B")
    return [beauty, (np.full((4, 6, 1), depth, np.float32), ("A.Depth.Z",))]


def test_every_part_is_compared(tmp_path: Path) -> None:
    a = write_parts(tmp_path / "a.exr", parts(1))
    b = write_parts(tmp_path / "b.exr", parts(3))
    assert [(group.group, group.max_absolute) for group in difference(a, b).groups] == [("A.Depth", 2)]
    c = write_parts(tmp_path / "c.exr", parts(1)[:1])
    assert difference(a, c).unlike == "only one of them has more parts"


def test_a_truncated_picture_is_no_difference_but_an_error(tmp_path: Path) -> None:
    a = write(tmp_path / "a.exr", layers(), _LAYERS)
    b = tmp_path / "b.exr"
    b.write_bytes(a.read_bytes()[:-200])
    with pytest.raises(BadPicture, match=r"^b\.exr is "):
        difference(a, b)
