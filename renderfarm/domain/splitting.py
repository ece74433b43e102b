"""Whether a task's frames are cut into parts, and into how many: when workers would be idle, and when it pays.

A still that takes long is cut even for one worker, so that people see it fill in, and a crash costs a part of it only.
The last frames of an animation are cut when it has come to them, so that all workers end together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.needs import needs_gpu
from renderfarm.domain.paces import Pace
from renderfarm.domain.parts import (
    TILE_HEIGHT_MIN_PX,
    Part,
    PartKind,
    cut_lowering_tiles,
    cut_samples,
    cut_tiles,
    picture_size_px,
    why_not_split,
)
from renderfarm.domain.planning import check_settings, task_cameras, task_frames
from renderfarm.domain.render_settings import RenderSettings, Split

#: Samples of a pixel that Cycles computes in a second on one thread of a CPU: an estimate that errs towards whole
#: frames. Measured with ``benchmarks/render_scenes.py``: 0.4 to 0.9 million.
_SAMPLES_PER_S = 1_000_000.0
#: How many times faster a GPU is.
_GPU_FACTOR = 100.0
#: Adaptive sampling stops early: of Blender's 4096 samples by default most pixels need some hundreds. A guess.
_ADAPTIVE_SAMPLES = 64
_ADAPTIVE_FACTOR = 10.0
#: Shorter parts for several workers are not worth the trouble. A warm session renders twelve tiles as fast as the whole
#: picture, without adaptive sampling (measured: 11.9 to 12.1 s against 12.2 s).
_PART_MIN_S = 1.0
_PARTS_MAX = 256
#: And not worth it for few workers more than there are pictures.
_IDLE_FACTOR_MIN = 1.5
#: Rows of a tile that are not rim, where it has one, so that the rim is a small part of the work.
_ADAPTIVE_HEIGHT_MIN_PX = 64
#: What takes so long is cut for one worker too, but no more pictures of a task than this: an animation fills in anyway.
_LONG_S = 30.0
_LONG_PICTURES_MAX = 3
_LONG_PART_S = 5.0
_LONG_PARTS_MAX = 16
_LONG_ADAPTIVE_HEIGHT_MIN_PX = 192
#: Last frames that take less are not worth cutting: the merge takes a part of a second, too.
_LAST_MIN_S = 4.0
_LAST_PARTS_MAX = 8
_MOMENT_S = 1e-3
#: All parts together may take so much more than the frame, if each is prepared anew.
_LAST_PREPARATION_MAX = 0.25


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What becomes of each frame."""

    parts: tuple[Part, ...] = ()
    """None: it is rendered as a whole."""
    reason: str = ""
    """Why, in words for people; empty where there is nothing to say."""


def cut_frames(settings: RenderSettings, facts: SceneFacts, *, idle_workers: int, threads: float) -> Cut:
    """Decide how each frame of a task is cut.

    Args:
        idle_workers: how many workers that can render it have nothing to do.
        threads: the threads of a worker that can, in the mean.

    Raises:
        InvalidSettings, InvalidFrames, MissingFiles: the scene cannot satisfy the settings.
    """
    if settings.split == Split.NONE:
        return Cut()
    scene = check_settings(settings, facts)
    pictures = len(task_frames(settings, scene)) * len(task_cameras(settings, scene))
    width_px, height_px = picture_size_px(scene, settings)
    wanted = re.fullmatch(r"(tiles|samples):([0-9]+)", settings.split)
    if wanted is not None and wanted[1] == "samples":
        parts: Sequence[Part] = cut_samples(_samples(settings, scene), int(wanted[2]))
        return _cut(settings, scene, PartKind.SAMPLES, parts, asked=int(wanted[2]))
    if wanted is not None:
        return _cut(settings, scene, PartKind.TILE, cut_tiles(width_px, height_px, int(wanted[2])), int(wanted[2]))
    picture_s = _picture_s(settings, scene, threads)
    if picture_s == 0.0:  # some percent of a small picture may be none
        return Cut()
    if pictures * _IDLE_FACTOR_MIN <= idle_workers:  # else a frame for each keeps most of them busy, and costs nothing
        workers = ceil(idle_workers / pictures)
        tiles = cut_lowering_tiles(width_px, height_px, workers, _height_min_px(scene, height_px, picture_s))
    elif picture_s >= _LONG_S and pictures <= _LONG_PICTURES_MAX:
        tiles = cut_tiles(width_px, height_px, _long_parts(scene, height_px, picture_s))
    else:
        return Cut()
    return _cut(settings, scene, PartKind.TILE, tiles) if len(tiles) > 1 else Cut()


def last_frames(workers: int) -> int:
    """Return with how many frames to go cutting them lets workers end together that are each somewhere in a frame.

    On the average they have half a frame to go, so half a frame for each of them fills the gaps.
    """
    return ceil(workers / 2) if workers > 1 else 0


def cut_last_frame(settings: RenderSettings, facts: SceneFacts, pace: Pace) -> tuple[Part, ...]:
    """Return the parts into which one of a task's last frames is cut; none: it is rendered as a whole.

    Args:
        pace: of the task's frames so far.

    Raises:
        InvalidSettings, MissingFiles: the scene cannot satisfy the settings.
    """
    scene = check_settings(settings, facts)
    width_px, height_px = picture_size_px(scene, settings)
    if settings.split != Split.AUTO or not is_worth_cutting(pace) or not (width_px and height_px):
        return ()
    if why_not_split(scene, settings, PartKind.TILE) is not None:
        return ()
    parts = min(_last_parts(pace), height_px // _height_min_px(scene, height_px, pace.frame_s))
    tiles = cut_tiles(width_px, height_px, max(1, parts))
    return tiles if len(tiles) > 1 else ()


def is_worth_cutting(pace: Pace | None) -> bool:
    """Tell whether frames of this pace (None: unknown) are worth cutting when they are the last."""
    return pace is not None and pace.frame_s >= _LAST_MIN_S and _last_parts(pace) > 1


def _last_parts(pace: Pace) -> int:
    if pace.preparation_s is None:
        return 1
    return int(min(_LAST_PARTS_MAX, _LAST_PREPARATION_MAX * pace.frame_s / max(pace.preparation_s, _MOMENT_S)))


def _cut(
    settings: RenderSettings, scene: SceneInfo, kind: PartKind, parts: Sequence[Part], asked: int | None = None
) -> Cut:
    obstacle = why_not_split(scene, settings, kind)
    if obstacle is not None:
        return Cut(reason=f"frames are not split: {obstacle}")
    what = "tiles" if kind is PartKind.TILE else "ranges of samples"
    if len(parts) < 2:
        return Cut(reason=f"frames are not split into {asked} {what}: {_why_no_more(settings, scene, kind)}")
    reason = f"each frame is rendered in {len(parts)} {what}"
    if asked is not None and len(parts) < asked:
        reason += f", not {asked}: {_why_no_more(settings, scene, kind)}"
    return Cut(parts=tuple(parts), reason=reason)


def _why_no_more(settings: RenderSettings, scene: SceneInfo, kind: PartKind) -> str:
    if kind is PartKind.SAMPLES:
        return f"a range has at least one sample, and a pixel has {_samples(settings, scene)}"
    _, height_px = picture_size_px(scene, settings)
    return f"a tile is at least {TILE_HEIGHT_MIN_PX} pixels high, and the picture is {height_px}"


def _samples(settings: RenderSettings, scene: SceneInfo) -> int:
    return settings.samples or scene.samples or 1


def _picture_s(settings: RenderSettings, scene: SceneInfo, threads: float) -> float:
    """Return how long one worker will take for a picture: an estimate that is rather too low."""
    width_px, height_px = picture_size_px(scene, settings)
    samples = float(_samples(settings, scene))
    if scene.uses_adaptive_sampling:
        samples = min(samples, _ADAPTIVE_SAMPLES + samples / _ADAPTIVE_FACTOR)
    factor = _GPU_FACTOR if needs_gpu(settings, scene) else 1.0
    return width_px * height_px * samples / (_SAMPLES_PER_S * threads * factor)


def _height_min_px(scene: SceneInfo, height_px: int, picture_s: float) -> int:
    """Return the least height of tiles for several workers."""
    worth_it_px = min(height_px, ceil(height_px * _PART_MIN_S / picture_s))
    rim_px = _ADAPTIVE_HEIGHT_MIN_PX if scene.uses_adaptive_sampling else 0
    return max(worth_it_px, rim_px, height_px // _PARTS_MAX + 1)


def _long_parts(scene: SceneInfo, height_px: int, picture_s: float) -> int:
    """Return into how many tiles a picture is cut so that it fills in."""
    count = min(int(picture_s / _LONG_PART_S), _LONG_PARTS_MAX)
    if scene.uses_adaptive_sampling:
        count = min(count, height_px // _LONG_ADAPTIVE_HEIGHT_MIN_PX)
    return max(1, count)
