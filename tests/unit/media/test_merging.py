"""Putting the parts of a frame together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from renderfarm.domain.parts import OVERSCAN_PX, Part, SampleRange, Tile, cut_samples, cut_tiles
from renderfarm.errors import BadPicture
from renderfarm.media.merging import PartFile, merge_parts

WIDTH, HEIGHT = 21, 150
#: In the order in which OpenImageIO gives them.
NAMES = ("Second.Depth.Z", *(f"ViewLayer.Combined.{letter}" for letter in "RGBA"))
TEXTS = {
    "Frame": "7",
    "cycles.ViewLayer.samples": "64",
    "cycles.ViewLayer.render_time": "01:10.50",
    "cryptomatte/1/manifest": '{"Cube": "a"}',
}
WHOLE = np.random.default_rng(1).random((HEIGHT, WIDTH, len(NAMES)), np.float32)
WHOLE[3, 4] = np.nan
WHOLE[5, 6] = np.inf


def write(path: Path, pixels: NDArray[Any], names: Sequence[str] = NAMES, texts: dict[str, str] = TEXTS) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], len(names), "float")
    spec.channelnames = tuple(names)
    spec.attribute("compression", "zip")
    for name, text in texts.items():
        spec.attribute(name, text)
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec), output.geterror()
    assert output.write_image(np.ascontiguousarray(pixels))
    assert output.close()
    return path


def write_tile(folder: Path, tile: Tile, margin_px: int = 0, **options: Any) -> PartFile:
    region = tile.grown(margin_px, WIDTH, HEIGHT)
    pixels = WHOLE[HEIGHT - region.y1_px : HEIGHT - region.y0_px, region.x0_px : region.x1_px]
    return PartFile(part=tile, path=write(folder / f"{tile.x0_px}-{tile.y0_px}.exr", pixels, **options))


def merge(files: Sequence[PartFile], folder: Path) -> tuple[NDArray[np.float32], Any]:
    merge_parts(files, folder / "merged.exr", width_px=WIDTH, height_px=HEIGHT)
    assert list(folder.glob(".*")) == []
    picture = oiio.ImageBuf(str(folder / "merged.exr"))
    assert tuple(picture.spec().channelnames) == NAMES
    pixels = picture.get_pixels(oiio.FLOAT)
    assert pixels is not None
    return pixels, picture.spec()


# --- tiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin_px", [0, OVERSCAN_PX])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_strips_make_the_whole_whatever_their_order(tmp_path: Path, count: int, margin_px: int) -> None:
    files = [write_tile(tmp_path, tile, margin_px) for tile in cut_tiles(WIDTH, HEIGHT, count)]
    for order in (files, files[::-1]):
        pixels, _ = merge(order, tmp_path)
        assert np.array_equal(pixels, WHOLE, equal_nan=True)


@given(st.integers(1, WIDTH - 1), st.integers(1, HEIGHT - 1), st.integers(1, HEIGHT - 1), st.booleans())
def test_any_rectangles_make_the_whole(
    tmp_path_factory: pytest.TempPathFactory, x_px: int, left_y_px: int, right_y_px: int, has_rim: bool
) -> None:
    corners = ((0, x_px, left_y_px), (x_px, WIDTH, right_y_px))
    tiles = [Tile(x0_px=x0, x1_px=x1, y0_px=y0, y1_px=y1) for x0, x1, y in corners for y0, y1 in ((0, y), (y, HEIGHT))]
    folder = tmp_path_factory.mktemp("tiles")
    files = [write_tile(folder, tile, OVERSCAN_PX if has_rim else 0) for tile in tiles]
    pixels, _ = merge(files, folder)
    assert np.array_equal(pixels, WHOLE, equal_nan=True)


def test_channels_and_what_cycles_says_are_kept(tmp_path: Path) -> None:
    _, spec = merge([write_tile(tmp_path, tile) for tile in cut_tiles(WIDTH, HEIGHT, 3)], tmp_path)
    assert spec.format == oiio.FLOAT
    assert spec.get_string_attribute("compression") == "none"
    assert spec.get_string_attribute("cryptomatte/1/manifest") == TEXTS["cryptomatte/1/manifest"]
    assert spec.get_string_attribute("cycles.ViewLayer.samples") == "64"
    # The time that all parts took together: 3 x 1 min 10.5 s.
    assert spec.get_string_attribute("cycles.ViewLayer.render_time") == "03:31.50"


def test_hours_of_rendering_are_added_up(tmp_path: Path) -> None:
    texts = {"cycles.ViewLayer.total_time": "01:40:00.25"}
    files = [write_tile(tmp_path, tile, texts=texts) for tile in cut_tiles(WIDTH, HEIGHT, 2)]
    _, spec = merge(files, tmp_path)
    assert spec.get_string_attribute("cycles.ViewLayer.total_time") == "03:20:00.50"


# --- sample ranges -------------------------------------------------------------------------------------------


def test_sample_ranges_are_averaged_by_their_counts(tmp_path: Path) -> None:
    ranges = cut_samples(10, 3)
    assert [part.count for part in ranges] == [3, 3, 4]
    levels = (1.0, 2.0, 5.0)
    texts = {"cycles.ViewLayer.samples": "3"}
    files = [
        PartFile(part=part, path=write(tmp_path / f"{part.first}.exr", np.full_like(WHOLE, level), texts=texts))
        for part, level in zip(ranges, levels, strict=True)
    ]
    pixels, spec = merge(files, tmp_path)
    assert np.all(pixels == np.float32((3 * 1 + 3 * 2 + 4 * 5) / 10))
    assert spec.get_string_attribute("cycles.ViewLayer.samples") == "10"


# --- what is wrong -------------------------------------------------------------------------------------------

TILES = cut_tiles(WIDTH, HEIGHT, 3)
BOTTOM = Tile(x0_px=0, y0_px=0, x1_px=WIDTH, y1_px=100)


def refuse(files: Sequence[PartFile], folder: Path, match: str) -> None:
    with pytest.raises(BadPicture, match=match):
        merge_parts(files, folder / "merged.exr", width_px=WIDTH, height_px=HEIGHT)
    assert not (folder / "merged.exr").exists()
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize(
    ("tiles", "match"),
    [
        ((), "neither"),
        (TILES[:2], "do not make up"),
        ((*TILES, TILES[0]), "overlap"),
        ((*TILES[1:], BOTTOM), "overlap"),
    ],
)
def test_tiles_must_cover_the_picture_once(tmp_path: Path, tiles: tuple[Tile, ...], match: str) -> None:
    refuse([write_tile(tmp_path, tile) for tile in tiles], tmp_path, match)


@pytest.mark.parametrize(
    ("ranges", "match"),
    [
        (((0, 2, 6), (2, 2, 6)), "do not make up 6 samples"),
        (((0, 2, 6), (3, 3, 6)), "do not make up 6 samples"),
        (((0, 4, 6), (3, 3, 6)), "do not make up 6 samples"),
        (((0, 2, 4), (2, 2, 5)), "do not make up 4 samples"),
    ],
)
def test_ranges_must_be_all_samples_once(tmp_path: Path, ranges: Sequence[tuple[int, int, int]], match: str) -> None:
    parts = [SampleRange(first=first, count=count, total=total) for first, count, total in ranges]
    path = write(tmp_path / "a.exr", WHOLE)
    refuse([PartFile(part=part, path=path) for part in parts], tmp_path, match)


def test_tiles_and_ranges_do_not_mix(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.exr", WHOLE)
    parts: list[Part] = [Tile(x0_px=0, y0_px=0, x1_px=WIDTH, y1_px=HEIGHT), SampleRange(first=0, count=1, total=1)]
    refuse([PartFile(part=part, path=whole) for part in parts], tmp_path, "or both")


def test_a_file_of_another_size_is_told(tmp_path: Path) -> None:
    files = [write_tile(tmp_path, tile) for tile in TILES]
    write(files[1].path, WHOLE[:49])
    refuse(files, tmp_path, "0-50.exr has 21 x 49 pixels")


def test_other_channels_are_told(tmp_path: Path) -> None:
    files = [write_tile(tmp_path, tile) for tile in TILES]
    write(files[2].path, WHOLE[:50], ["Second.Mist.Z", *NAMES[1:]])
    refuse(files, tmp_path, r"0-100.exr and 0-0.exr differ in channels: Second.Depth.Z, Second.Mist.Z")


@pytest.mark.parametrize(("name", "other"), [("Frame", "8"), ("cryptomatte/1/manifest", "{}")])
def test_parts_of_another_frame_or_scene_are_told(tmp_path: Path, name: str, other: str) -> None:
    files = [write_tile(tmp_path, tile) for tile in TILES]
    write(files[2].path, WHOLE[:50], texts=TEXTS | {name: other})
    refuse(files, tmp_path, f"differ in {name}")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_part_is_told(tmp_path: Path, share: float) -> None:
    files = [write_tile(tmp_path, tile) for tile in TILES]
    content = files[1].path.read_bytes()
    files[1].path.write_bytes(content[: int(len(content) * share)])
    refuse(files, tmp_path, "0-50.exr is")


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    files = [write_tile(tmp_path, tile) for tile in TILES]
    files[1].path.unlink()
    refuse(files, tmp_path, "0-50.exr is no picture")


def test_a_target_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    files = [write_tile(tmp_path, tile) for tile in TILES]
    with pytest.raises(OSError, match="cannot write"):
        merge_parts(files, tmp_path / "nowhere" / "merged.exr", width_px=WIDTH, height_px=HEIGHT)
