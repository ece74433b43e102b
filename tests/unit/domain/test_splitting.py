"""When frames are cut into parts without anybody asking, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.paces import Pace
from renderfarm.domain.parts import TILE_HEIGHT_MIN_PX, Tile, cut_lowering_tiles
from renderfarm.domain.render_settings import Device, RenderSettings
from renderfarm.domain.splitting import cut_frames, cut_last_frame, last_frames
from renderfarm.errors import InvalidSettings
from tests.unit.fakes import scene_facts, scene_info

BIG = RenderSettings(frames="1", resolution_x_px=1920, resolution_y_px=1080, samples=256)  # some 500 s on one thread
LONG = replace(BIG, samples=32)  # some 60 s
SHORT = replace(BIG, samples=1)


def facts(*, adaptive: bool = False, **changes: Any) -> SceneFacts:
    return scene_facts(scene_info(**{"uses_adaptive_sampling": adaptive, "split_obstacles": ()} | changes))


def heights_px(settings: RenderSettings, *, idle: int, threads: float = 1.0, adaptive: bool = False) -> list[int]:
    """Return the height of each tile of a frame; none: it is not cut."""
    cut = cut_frames(settings, facts(adaptive=adaptive), idle_workers=idle, threads=threads)
    tiles = [part for part in cut.parts if isinstance(part, Tile)]
    assert len(tiles) == len(cut.parts)
    return [tile.y1_px - tile.y0_px for tile in tiles]


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 64, 5000])
@pytest.mark.parametrize("height_px", [1, 15, 16, 33, 540, 2160])
@pytest.mark.parametrize("least_px", [1, 64, 3000])
def test_lowering_tiles_cover_the_picture_once(workers: int, height_px: int, least_px: int) -> None:
    tiles = cut_lowering_tiles(640, height_px, workers, least_px)
    assert [tile.y0_px for tile in tiles] == [0, *(tile.y1_px for tile in tiles[:-1])]
    assert tiles[-1].y1_px == height_px
    assert {(tile.x0_px, tile.x1_px) for tile in tiles} == {(0, 640)}
    heights = [tile.y1_px - tile.y0_px for tile in tiles]
    assert len(heights) == 1 or min(heights) >= max(TILE_HEIGHT_MIN_PX, least_px)


def test_the_last_tiles_are_low_so_that_all_workers_end_together() -> None:
    heights = [tile.y1_px - tile.y0_px for tile in cut_lowering_tiles(960, 540, 2, 1)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 540 // 8  # a quarter of a worker's half
    assert max(heights[-3:]) <= 2 * TILE_HEIGHT_MIN_PX


@pytest.mark.parametrize(
    ("least_px", "heights"), [(271, [540, 540]), (360, [540, 540]), (270, [270] * 4), (700, [1080])]
)
def test_few_tiles_are_equal(least_px: int, heights: list[int]) -> None:
    assert [tile.y1_px - tile.y0_px for tile in cut_lowering_tiles(960, 1080, 2, least_px)] == heights


@pytest.mark.parametrize("wrong", [(0, 9, 1), (9, 0, 1), (9, 9, 0)])
def test_nothing_cannot_be_cut(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidSettings):
        cut_lowering_tiles(*wrong, 1)


def test_a_still_is_cut_for_idle_workers() -> None:
    assert len(heights_px(BIG, idle=2)) > 8
    assert sum(heights_px(BIG, idle=2)) == 1080


def test_what_is_short_is_not_cut() -> None:
    assert heights_px(SHORT, idle=2, threads=8) == []
    assert heights_px(replace(LONG, device=Device.GPU), idle=1) == []


def test_few_frames_are_cut_where_workers_would_have_none() -> None:
    assert heights_px(replace(BIG, frames="1-2"), idle=3)
    assert heights_px(replace(BIG, frames="1-3"), idle=3, threads=64) == []
    assert heights_px(replace(BIG, frames="1-3"), idle=4, threads=64) == []  # one more brings little


def test_a_file_that_wants_a_gpu_is_estimated_for_one() -> None:
    assert cut_frames(LONG, facts(wants_gpu=True), idle_workers=1, threads=1.0).parts == ()
    assert cut_frames(LONG, facts(), idle_workers=1, threads=1.0).parts


def test_adaptive_sampling_is_not_taken_for_all_of_its_samples() -> None:
    default = replace(BIG, samples=4096)
    assert heights_px(default, idle=1, threads=64)
    assert heights_px(default, idle=1, threads=64, adaptive=True) == []


def test_a_picture_without_pixels_is_not_cut() -> None:
    none = facts(resolution_x_px=64, resolution_y_px=36, percent=1)
    assert cut_frames(RenderSettings(frames="1"), none, idle_workers=4, threads=1.0).parts == ()


@pytest.mark.parametrize(
    ("split", "parts", "reason"),
    [
        ("tiles:2", 2, "each frame is rendered in 2 tiles"),
        (
            "tiles:4",
            2,
            "each frame is rendered in 2 tiles, not 4: a tile is at least 16 pixels high, and the picture is 45",
        ),
        (
            "samples:9",
            3,
            "each frame is rendered in 3 ranges of samples, not 9: a range has at least one sample, and a pixel has 3",
        ),
    ],
)
def test_who_asked_for_more_parts_is_told_why_there_are_fewer(split: str, parts: int, reason: str) -> None:
    small = RenderSettings(frames="1", resolution_x_px=80, resolution_y_px=45, samples=3, split=split)
    cut = cut_frames(small, facts(sample_obstacles=()), idle_workers=1, threads=1.0)
    assert (len(cut.parts), cut.reason) == (parts, reason)


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        (
            "tiles:4",
            "frames are not split into 4 tiles: a tile is at least 16 pixels high, and the picture is 20",
        ),
        (
            "samples:2",
            "frames are not split into 2 ranges of samples: a range has at least one sample, and a pixel has 1",
        ),
    ],
)
def test_who_asked_for_parts_is_told_why_there_are_none(split: str, reason: str) -> None:
    tiny = RenderSettings(frames="1", resolution_x_px=80, resolution_y_px=20, samples=1, split=split)
    cut = cut_frames(tiny, facts(sample_obstacles=()), idle_workers=1, threads=1.0)
    assert (cut.parts, cut.reason) == ((), reason)


def test_tiles_with_a_rim_are_higher() -> None:
    assert min(heights_px(BIG, idle=4, adaptive=True)) >= 64 > min(heights_px(BIG, idle=4))


@pytest.mark.parametrize("idle", [0, 1])
def test_a_long_still_is_cut_even_for_one_worker_so_that_it_fills_in(idle: int) -> None:
    heights = heights_px(LONG, idle=idle)
    assert 8 <= len(heights) <= 16
    assert max(heights) - min(heights) <= 1  # there is nobody to end together with
    assert len(heights_px(LONG, idle=idle, adaptive=True)) == 1080 // 192
    assert heights_px(LONG, idle=idle, threads=8) == []  # so many threads have it soon
    assert heights_px(replace(LONG, frames="1-4"), idle=idle) == []  # which fills in frame by frame


@pytest.mark.parametrize(("workers", "frames"), [(0, 0), (1, 0), (2, 1), (3, 2), (10, 5)])
def test_half_a_frame_for_each_worker_fills_the_gaps_at_the_end(workers: int, frames: int) -> None:
    assert last_frames(workers) == frames


ANIMATION = replace(LONG, frames="1-24")


def last_heights_px(
    frame_s: float, preparation_s: float | None = 0.1, settings: RenderSettings = ANIMATION, **changes: Any
) -> list[int]:
    """Return the height of each tile of a task's last frame, given the pace of those before."""
    pace = Pace(frame_s=frame_s, preparation_s=preparation_s)
    tiles = cut_last_frame(settings, facts(**changes), pace)
    return [tile.y1_px - tile.y0_px for tile in tiles if isinstance(tile, Tile)]


def test_a_long_last_frame_is_cut_into_few_tiles() -> None:
    assert last_heights_px(60.0) == [135] * 8
    assert len(last_heights_px(4.5)) == 4  # of a second each
    assert len(last_heights_px(600.0, adaptive=True, resolution_y_px=1080)) == 8


def test_a_last_frame_that_is_not_worth_it_stays_whole() -> None:
    assert last_heights_px(3.9) == []
    assert last_heights_px(60.0, preparation_s=8.0) == []  # it might be prepared anew for each part
    assert len(last_heights_px(60.0, preparation_s=5.0)) == 3
    assert last_heights_px(60.0, preparation_s=None) == []  # nobody knows how long that takes
    assert last_heights_px(60.0, settings=replace(ANIMATION, split="none")) == []
    assert last_heights_px(60.0, settings=replace(ANIMATION, split="tiles:4")) == []
    assert last_heights_px(60.0, engine="BLENDER_EEVEE_NEXT") == []
    assert last_heights_px(60.0, split_obstacles=("it has a trace",)) == []
    assert last_heights_px(60.0, settings=replace(ANIMATION, resolution_y_px=20)) == []
