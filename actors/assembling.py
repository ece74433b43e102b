"""What a worker makes of pieces that others have rendered: one picture of a frame's parts, a movie of frames.

These functions block; they run in threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from renderfarm.domain.facts import SceneInfo
from renderfarm.domain.models import Asset, Output, Task
from renderfarm.domain.movies import MovieFormat, frame_rate
from renderfarm.domain.parts import picture_size_px
from renderfarm.ports import Farm
from renderfarm.services.dependencies import RenderedPart
from renderfarm.services.displays import display_of
from renderfarm.services.movies import movie_name


class Stopped(Exception):
    """The movie is not wanted any more."""


def merge(farm: Farm, task: Task, asset: Asset, parts: Sequence[RenderedPart], folder: Path) -> Path:
    """Put a frame's parts together; return a multilayer EXR of all its passes.

    Raises:
        NotFound, FarmUnavailable, StorageFull: a part cannot be had.
        BadPicture: the parts do not fit together.
    """
    from renderfarm.media.merging import PartFile, merge_parts  # its libraries are large, and not every worker merges

    width_px, height_px = picture_size_px(_scene(task, asset), task.settings)
    files: list[PartFile] = []
    for number, part in enumerate(parts):
        path = folder / f"part-{number}.exr"
        farm.objects.fetch(part.output.digest, path)
        files.append(PartFile(part=part.part, path=path))
    merged = folder / "merged.exr"
    merge_parts(files, merged, width_px=width_px, height_px=height_px)
    for file in files:
        file.path.unlink()
    return merged


def encode(
    farm: Farm, task: Task, asset: Asset, frames: Sequence[Output], folder: Path, stopped: threading.Event
) -> Path:
    """Make a movie of frames; return its file, in a folder of its own.

    Raises:
        Stopped: somebody has set ``stopped``.
        NotFound, FarmUnavailable, StorageFull: a frame cannot be had.
        BadPicture, InvalidSettings: the frames make no movie.
    """
    from renderfarm.media.movies import encode_movie

    scene = _scene(task, asset)
    kind = task.settings.movie or MovieFormat.H264
    target = folder / "movie" / movie_name(frames, kind)
    target.parent.mkdir(exist_ok=True)
    encode_movie(
        _fetched(farm, frames, folder, stopped),
        target,
        movie_format=kind,
        frame_rate=frame_rate(scene.fps, scene.fps_base),
        display=display_of(farm.settings, task, asset.facts),
    )
    return target


def _fetched(farm: Farm, frames: Sequence[Output], folder: Path, stopped: threading.Event) -> Iterator[Path]:
    """Yield each frame's file, which is gone once the next is asked for."""
    for frame in frames:
        if stopped.is_set():
            raise Stopped
        path = folder / f"frame{Path(frame.name).suffix}"
        farm.objects.fetch(frame.digest, path)
        yield path
        path.unlink()


def _scene(task: Task, asset: Asset) -> SceneInfo:
    scene = None if asset.facts is None else asset.facts.scene(task.settings.scene)
    if scene is None:
        raise LookupError(f"task {task.id} has no inspected scene")
    return scene
