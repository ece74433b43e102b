"""One frame cut into parts that workers render side by side, so that the merged picture is the whole render's.

Tiles of a Cycles picture have the whole render's pixels to the last bit; with adaptive sampling they need a rim of
``OVERSCAN_PX`` that is cut off again. Sample ranges, averaged by their counts, differ by rounding only. Both is
measured in ``tests/integration/session/test_splitting.py``; what is known not to be exact ``why_not_split`` refuses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import accumulate, pairwise
from typing import Any

from renderfarm.domain.facts import SceneInfo
from renderfarm.domain.render_settings import Device, Engine, RenderSettings
from renderfarm.errors import InvalidSettings

#: The rim around a tile where adaptive sampling looks at the pixels beside each pixel: what Cycles takes around its own
#: tiles (``overscan_`` in intern/cycles/session/tile.cpp). ``blender_runtime/render_unit.py`` has the same number.
OVERSCAN_PX = 4
#: Lower strips would be mostly rim.
TILE_HEIGHT_MIN_PX = 16


class PartKind(StrEnum):
    TILE = "tile"
    SAMPLES = "samples"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A rectangle of the picture, its rim not counted.

    Pixels are counted from the left and, as Blender does, from the bottom; ``x1_px`` and ``y1_px`` are outside.
    """

    x0_px: int
    y0_px: int
    x1_px: int
    y1_px: int

    def __post_init__(self) -> None:
        if not (0 <= self.x0_px < self.x1_px and 0 <= self.y0_px < self.y1_px):
            raise InvalidSettings(f"a tile from {self.x0_px}, {self.y0_px} to {self.x1_px}, {self.y1_px} is none")

    def grown(self, margin_px: int, width_px: int, height_px: int) -> Tile:
        """Return the tile with a rim, as far as the picture goes."""
        return Tile(
            x0_px=max(0, self.x0_px - margin_px),
            y0_px=max(0, self.y0_px - margin_px),
            x1_px=min(width_px, self.x1_px + margin_px),
            y1_px=min(height_px, self.y1_px + margin_px),
        )


@dataclass(frozen=True, kw_only=True)
class SampleRange:
    """Some of the samples of every pixel."""

    first: int
    """Counted from 0."""
    count: int
    total: int
    """Samples of the whole picture."""

    def __post_init__(self) -> None:
        if self.first < 0 or self.count < 1 or self.first + self.count > self.total:
            raise InvalidSettings(f"{self.count} samples from {self.first} on are not among {self.total}")


Part = Tile | SampleRange


def part_to_json(part: Part) -> dict[str, int]:
    """Return what JSON and the unit's script know a part as: its fields."""
    return asdict(part)


def part_from_json(value: dict[str, Any]) -> Part:
    """Return the part of such fields.

    Raises:
        InvalidSettings: they are no part's.
    """
    for cls in (Tile, SampleRange):
        if value.keys() == cls.__dataclass_fields__.keys() and all(type(item) is int for item in value.values()):
            return cls(**value)
    raise InvalidSettings(f"not a part of a frame: {str(value)[:80]}")


def cut_tiles(width_px: int, height_px: int, count: int) -> tuple[Tile, ...]:
    """Cut a picture into strips as wide as it is, from the bottom up.

    They are of equal height, give or take a row, and not lower than ``TILE_HEIGHT_MIN_PX``: there may be fewer.

    Raises:
        InvalidSettings: the picture has no pixels, or the count is below 1.
    """
    if width_px < 1 or height_px < 1 or count < 1:
        raise InvalidSettings(f"{width_px} x {height_px} pixels cannot be cut into {count} tiles")
    count = min(count, max(1, height_px // TILE_HEIGHT_MIN_PX))
    return tuple(
        Tile(x0_px=0, y0_px=start, x1_px=width_px, y1_px=end) for start, end in _equal_shares(height_px, count)
    )


def cut_lowering_tiles(width_px: int, height_px: int, workers: int, height_min_px: int) -> tuple[Tile, ...]:
    """Cut a picture into strips from the bottom up that get lower towards the last, so that all workers end together.

    Each takes its share of half of what is left ("guided self-scheduling", C. D. Polychronopoulos and D. J. Kuck,
    IEEE Transactions on Computers C-36, 1987), but none more than a quarter of a worker's, so that the picture
    fills in soon. Where they must be so high that there are few, they are of equal height.

    Args:
        height_min_px: none is lower than this, nor than ``TILE_HEIGHT_MIN_PX``.

    Raises:
        InvalidSettings: the picture has no pixels, or nobody renders it.
    """
    if width_px < 1 or height_px < 1 or workers < 1:
        raise InvalidSettings(f"{width_px} x {height_px} pixels cannot be cut into tiles for {workers} workers")
    least_px = max(TILE_HEIGHT_MIN_PX, height_min_px)
    most = height_px // least_px
    if most < 2 * workers:  # equal ones, as many for each worker where there are enough
        return cut_tiles(width_px, height_px, max(1, most - most % workers if most > workers else most))
    heights_px: list[int] = []
    while (left_px := height_px - sum(heights_px)) > 0:
        tile_px = max(least_px, min(height_px // (4 * workers), left_px // (2 * workers)))
        heights_px.append(tile_px if left_px - tile_px >= least_px else left_px)
    edges = [0, *accumulate(sorted(heights_px, reverse=True))]
    return tuple(Tile(x0_px=0, y0_px=start, x1_px=width_px, y1_px=end) for start, end in pairwise(edges))


def cut_samples(total: int, count: int) -> tuple[SampleRange, ...]:
    """Cut a number of samples into ranges that are equal, give or take one; fewer than asked for if there are too few.

    Raises:
        InvalidSettings: there are no samples, or the count is below 1.
    """
    if total < 1 or count < 1:
        raise InvalidSettings(f"{total} samples cannot be cut into {count} ranges")
    shares = _equal_shares(total, min(count, total))
    return tuple(SampleRange(first=start, count=end - start, total=total) for start, end in shares)


def _equal_shares(size: int, count: int) -> list[tuple[int, int]]:
    edges = [size * index // count for index in range(count + 1)]
    return list(pairwise(edges))


def picture_size_px(scene: SceneInfo, settings: RenderSettings) -> tuple[int, int]:
    """Return width and height of a task's pictures, computed in whole numbers as Blender does."""
    percent = settings.percent or scene.percent
    width_px, height_px = (
        settings.resolution_x_px or scene.resolution_x_px,
        settings.resolution_y_px or scene.resolution_y_px,
    )
    return width_px * percent // 100, height_px * percent // 100


# --- what cannot be split ------------------------------------------------------------------------------------


def why_not_split(scene: SceneInfo, settings: RenderSettings, kind: PartKind) -> str | None:
    """Return why a task's frames cannot be split without a trace, in words for people; ``None``: they can."""
    engine = _not_cycles(scene, settings)
    if engine is not None:
        return engine
    if scene.split_obstacles is None:
        return "the scene was inspected before splitting was known; upload it again to have its frames split"
    obstacles = (*scene.split_obstacles, *_denoising_obstacles(scene, settings))
    if kind is PartKind.SAMPLES:
        obstacles += _sample_obstacles(scene)
    return obstacles[0] if obstacles else None


def _not_cycles(scene: SceneInfo, settings: RenderSettings) -> str | None:
    if settings.engine is None:
        name = "Cycles" if scene.engine == "CYCLES" else scene.engine
    else:
        name = {Engine.CYCLES: "Cycles", Engine.EEVEE: "EEVEE", Engine.WORKBENCH: "Workbench"}[settings.engine]
    return None if name == "Cycles" else f"{name} has effects that need the whole picture; only Cycles is split"


def _denoising_obstacles(scene: SceneInfo, settings: RenderSettings) -> tuple[str, ...]:
    if not scene.denoises:
        return ()
    found = list(scene.denoising_obstacles)
    on_gpu = settings.device is Device.GPU or (settings.device is Device.AUTO and scene.wants_gpu)
    if on_gpu and scene.denoises_on_gpu:
        found.append("denoising on a GPU is not known to be the same after a merge")
    samples = settings.samples or scene.samples or 0
    if not scene.uses_adaptive_sampling and samples & (samples - 1):
        found.append(
            f"{samples} samples without adaptive sampling cannot be denoised after a merge exactly as before it; "
            "a power of two can"
        )
    return tuple(found)


def _sample_obstacles(scene: SceneInfo) -> tuple[str, ...]:
    adaptive = ("adaptive sampling decides by all samples of a pixel",) if scene.uses_adaptive_sampling else ()
    return (*adaptive, *scene.sample_obstacles)
