"""Whether a task's frames are cut into parts, and into how many: when workers would be idle, and when it pays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.parts import Part, PartKind, cut_samples, cut_tiles, picture_size_px, why_not_split
from renderfarm.domain.planning import check_settings, task_cameras, task_frames
from renderfarm.domain.render_settings import Device, RenderSettings, Split

#: Samples of a pixel that Cycles computes in a second on one thread of a CPU: an estimate that errs towards whole
#: frames. Measured with ``benchmarks/render_scenes.py``: 0.4 to 0.9 million.
_SAMPLES_PER_S = 1_000_000.0
#: How many times faster a GPU is.
_GPU_FACTOR = 100.0
#: Shorter parts would cost more, in starting and merging them, than they bring.
_PART_MIN_S = 2.0
#: Parts for each worker, so that all finish together although parts differ.
_PARTS_PER_WORKER = 8
_PARTS_MAX = 256
#: Rows of a tile that are not rim, where it has one.
_ADAPTIVE_HEIGHT_MIN_PX = 64


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What becomes of each frame."""

    parts: tuple[Part, ...] = ()
    """None: it is rendered as a whole."""
    reason: str = ""
    """Why, in words for people; empty where there is nothing to say."""


def cut_frames(settings: RenderSettings, facts: SceneFacts, idle_threads: Sequence[int]) -> Cut:
    """Decide how each frame of a task is cut.

    Args:
        idle_threads: the threads of each worker that has nothing to do.

    Raises:
        InvalidSettings, InvalidFrames, MissingFiles: the scene cannot satisfy the settings.
    """
    if settings.split == Split.NONE:
        return Cut()
    scene = check_settings(settings, facts)
    pictures = len(task_frames(settings, scene)) * len(task_cameras(settings, scene))
    wanted = re.fullmatch(r"(tiles|samples):([0-9]+)", settings.split)
    if wanted is not None:
        kind = PartKind.TILE if wanted[1] == "tiles" else PartKind.SAMPLES
        return _cut(settings, scene, kind, int(wanted[2]))
    # A frame for each worker keeps all of them busy, and costs nothing.
    if pictures >= len(idle_threads):
        return Cut()
    count = _count(settings, scene, pictures, idle_threads)
    return _cut(settings, scene, PartKind.TILE, count) if count > 1 else Cut()


def _cut(settings: RenderSettings, scene: SceneInfo, kind: PartKind, count: int) -> Cut:
    obstacle = why_not_split(scene, settings, kind)
    if obstacle is not None:
        return Cut(reason=f"frames are not split: {obstacle}")
    width_px, height_px = picture_size_px(scene, settings)
    parts: Sequence[Part]
    if kind is PartKind.TILE:
        parts = cut_tiles(width_px, height_px, count)
        what = "tiles"
    else:
        parts = cut_samples(settings.samples or scene.samples or 1, count)
        what = "ranges of samples"
    if len(parts) < 2:
        return Cut(reason=f"frames are not split: {width_px} x {height_px} pixels are too small for {count} {what}")
    return Cut(parts=tuple(parts), reason=f"each frame is rendered in {len(parts)} {what}")


def _count(settings: RenderSettings, scene: SceneInfo, pictures: int, idle_threads: Sequence[int]) -> int:
    """Return into how many parts a frame is best cut, 1 if it does not pay."""
    width_px, height_px = picture_size_px(scene, settings)
    per_s = (
        _SAMPLES_PER_S
        * (sum(idle_threads) / len(idle_threads))
        * (_GPU_FACTOR if settings.device is Device.GPU else 1.0)
    )
    frame_s = width_px * height_px * (settings.samples or scene.samples or 1) / per_s
    count = min(int(frame_s / _PART_MIN_S), _PARTS_PER_WORKER * len(idle_threads) // pictures, _PARTS_MAX)
    if scene.uses_adaptive_sampling:
        count = min(count, height_px // _ADAPTIVE_HEIGHT_MIN_PX)
    return max(1, count)
