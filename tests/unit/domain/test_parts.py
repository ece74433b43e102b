"""Cutting a frame into parts, and what is not cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.facts import SceneInfo
from renderfarm.domain.parts import (
    OVERSCAN_PX,
    TILE_HEIGHT_MIN_PX,
    Part,
    PartKind,
    Tile,
    cut_samples,
    cut_tiles,
    part_from_json,
    part_to_json,
    picture_size_px,
    why_not_split,
)
from renderfarm.domain.render_settings import Device, Engine, RenderSettings
from renderfarm.errors import InvalidSettings

SIZES = st.integers(1, 70_000)
COUNTS = st.integers(1, 40)


def scene(**changes: object) -> SceneInfo:
    fields: dict[str, object] = {
        "name": "Scene",
        "engine": "CYCLES",
        "frame_start": 1,
        "frame_end": 1,
        "frame_step": 1,
        "frame_current": 1,
        "fps": 24.0,
        "resolution_x_px": 1920,
        "resolution_y_px": 1080,
        "percent": 100,
        "cameras": ("Camera",),
        "camera": "Camera",
        "view_layers": ("ViewLayer",),
        "file_format": "PNG",
        "is_movie": False,
        "output_path": "//",
        "samples": 64,
        "split_obstacles": (),
    }
    return SceneInfo(**(fields | changes))  # type: ignore[arg-type]


# --- cutting -------------------------------------------------------------------------------------------------


@given(SIZES, SIZES, COUNTS)
def test_tiles_cover_the_picture_once(width_px: int, height_px: int, count: int) -> None:
    tiles = cut_tiles(width_px, height_px, count)
    assert 1 <= len(tiles) <= count
    assert [tile.y0_px for tile in tiles] == [0, *(tile.y1_px for tile in tiles[:-1])]
    assert tiles[-1].y1_px == height_px
    assert {(tile.x0_px, tile.x1_px) for tile in tiles} == {(0, width_px)}
    heights = [tile.y1_px - tile.y0_px for tile in tiles]
    assert max(heights) - min(heights) <= 1
    assert len(tiles) == 1 or min(heights) >= TILE_HEIGHT_MIN_PX
    assert len(tiles) == count or max(heights) < 3 * TILE_HEIGHT_MIN_PX


@given(st.integers(1, 100_000), COUNTS)
def test_ranges_are_all_samples_once(total: int, count: int) -> None:
    ranges = cut_samples(total, count)
    assert len(ranges) == min(total, count)
    assert [part.first for part in ranges] == [0, *(part.first + part.count for part in ranges[:-1])]
    assert sum(part.count for part in ranges) == total
    assert max(part.count for part in ranges) - min(part.count for part in ranges) <= 1


@given(SIZES, SIZES, COUNTS)
def test_parts_come_back_from_json(width_px: int, height_px: int, count: int) -> None:
    parts: list[Part] = [*cut_tiles(width_px, height_px, count), *cut_samples(width_px, count)]
    for part in parts:
        assert part_from_json(part_to_json(part)) == part


def test_a_rim_ends_at_the_pictures_edges() -> None:
    tile = Tile(x0_px=0, y0_px=10, x1_px=20, y1_px=30)
    assert tile.grown(4, 20, 32) == Tile(x0_px=0, y0_px=6, x1_px=20, y1_px=32)
    assert tile.grown(0, 20, 32) == tile


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"x0_px": 0, "y0_px": 0, "x1_px": 0, "y1_px": 1},
        {"x0_px": -1, "y0_px": 0, "x1_px": 1, "y1_px": 1},
        {"x0_px": 0, "y0_px": 0, "x1_px": 1, "y1_px": True},
        {"x0_px": 0, "y0_px": 0, "x1_px": 1, "y1_px": 1, "more": 1},
        {"first": 0, "count": 0, "total": 1},
        {"first": 1, "count": 1, "total": 1},
        {"first": -1, "count": 1, "total": 1},
        {"first": 0, "count": 1, "total": "1"},
    ],
)
def test_what_is_no_part_is_an_error(value: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings):
        part_from_json(value)


@pytest.mark.parametrize("call", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_cannot_be_cut_into_tiles(call: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidSettings):
        cut_tiles(*call)


@pytest.mark.parametrize("call", [(0, 1), (1, 0)])
def test_nothing_cannot_be_cut_into_ranges(call: tuple[int, int]) -> None:
    with pytest.raises(InvalidSettings):
        cut_samples(*call)


def test_pictures_are_as_large_as_blenders() -> None:
    assert picture_size_px(scene(percent=33), RenderSettings()) == (633, 356)
    settings = RenderSettings(resolution_x_px=301, resolution_y_px=173, percent=50)
    assert picture_size_px(scene(percent=33), settings) == (150, 86)


def test_script_and_farm_agree_on_the_rim() -> None:
    source = (Path(__file__).parents[3] / "blender_runtime" / "render_unit.py").read_text()
    found = re.search(r"^_OVERSCAN_PX = (\d+)$", source, re.MULTILINE)
    assert found is not None
    assert int(found[1]) == OVERSCAN_PX


# --- what is not split ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "settings", "tile_reason", "sample_reason"),
    [
        ({}, {}, None, None),
        ({"engine": "BLENDER_EEVEE_NEXT"}, {}, "only Cycles is split", "only Cycles is split"),
        ({"engine": "BLENDER_EEVEE_NEXT"}, {"engine": Engine.CYCLES}, None, None),
        ({}, {"engine": Engine.WORKBENCH}, "Workbench has effects", "Workbench has effects"),
        ({"split_obstacles": None}, {}, "upload it again", "upload it again"),
        ({"split_obstacles": ("one", "two")}, {}, "one", "one"),
        ({"sample_obstacles": ("means",)}, {}, None, "means"),
        ({"uses_adaptive_sampling": True}, {}, None, "adaptive sampling decides"),
        # Denoising has obstacles of its own; without denoising they do not count.
        ({"denoising_obstacles": ("shadows",)}, {}, None, None),
        ({"denoising_obstacles": ("shadows",), "denoises": True}, {}, "shadows", "shadows"),
        ({"denoises": True}, {}, None, None),
        ({"denoises": True, "denoises_on_gpu": True, "wants_gpu": True}, {}, "on a GPU", "on a GPU"),
        ({"denoises": True, "denoises_on_gpu": True, "wants_gpu": True}, {"device": Device.CPU}, None, None),
        ({"denoises": True, "denoises_on_gpu": True}, {}, None, None),
        ({"denoises": True, "denoises_on_gpu": True}, {"device": Device.GPU}, "on a GPU", "on a GPU"),
        ({"denoises": True, "wants_gpu": True}, {"device": Device.GPU}, None, None),
        ({"denoises_on_gpu": True, "wants_gpu": True}, {}, None, None),
        ({"denoises": True}, {"samples": 100}, "a power of two can", "a power of two can"),
        ({"denoises": True, "samples": 100}, {"samples": 128}, None, None),
        ({"denoises": True, "uses_adaptive_sampling": True}, {"samples": 100}, None, "adaptive sampling decides"),
    ],
)
def test_reasons_not_to_split(
    facts: dict[str, object], settings: dict[str, object], tile_reason: str | None, sample_reason: str | None
) -> None:
    for kind, wanted in ((PartKind.TILE, tile_reason), (PartKind.SAMPLES, sample_reason)):
        reason = why_not_split(scene(**facts), RenderSettings(**settings), kind)  # type: ignore[arg-type]
        if wanted is None:
            assert reason is None
        else:
            assert reason is not None
            assert wanted in reason
