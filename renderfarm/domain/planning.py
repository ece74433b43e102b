"""From a task's settings and its scene's facts to units."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.frames import FRAMES_PER_TASK_MAX, parse_frames
from renderfarm.domain.models import UnitKind
from renderfarm.domain.parts import Part
from renderfarm.domain.render_settings import ALL_CAMERAS, RenderSettings
from renderfarm.errors import InvalidFrames, InvalidSettings, MissingFiles

_UNSAFE = re.compile(r"[^\w.\- ]", re.UNICODE)


@dataclass(frozen=True, kw_only=True)
class PlannedUnit:
    """A render unit before it has an identity."""

    kind: UnitKind = UnitKind.RENDER
    camera: str | None = None
    folder: str = ""
    frames: tuple[int, ...] = ()
    part: Part | None = None
    share: float = 1.0
    """How much of a frame's work it is."""
    feeds: int | None = None
    """Position in the plan of the unit that waits for this one."""
    inputs: int = 0
    """Units for which this one waits."""

    @property
    def is_picture(self) -> bool:
        """It ends with a picture of the task."""
        return self.kind is UnitKind.MERGE or (self.kind is UnitKind.RENDER and self.part is None)


def plan(settings: RenderSettings, facts: SceneFacts, parts: Sequence[Part] = ()) -> tuple[PlannedUnit, ...]:
    """Split a task into units, in the order in which they are to be rendered.

    First the first, middle and last frame of each camera, so that a mistake shows early; then all others, cameras
    outermost, frames ascending.

    Args:
        parts: into which each frame is cut; none: it is rendered as a whole.

    Raises:
        InvalidSettings, InvalidFrames, MissingFiles: the scene cannot satisfy the settings.
    """
    scene = check_settings(settings, facts)
    frames = task_frames(settings, scene)
    cameras = task_cameras(settings, scene)
    if len(frames) * len(cameras) > FRAMES_PER_TASK_MAX:
        raise InvalidFrames(
            f"{len(frames)} frames from {len(cameras)} cameras are more than {FRAMES_PER_TASK_MAX} pictures"
        )
    if parts and len(frames) * len(cameras) * (len(parts) + 1) > FRAMES_PER_TASK_MAX:
        raise InvalidSettings(
            f"{len(frames) * len(cameras)} pictures of {len(parts)} parts are more than {FRAMES_PER_TASK_MAX} pieces"
        )
    folders = camera_folders(cameras)
    early = _early(frames)
    late = tuple(frame for frame in frames if frame not in early)
    planned: list[PlannedUnit] = []
    for some in (early, late):
        for camera, folder in zip(cameras, folders, strict=True):
            for frame in some:
                planned += _picture(PlannedUnit(camera=camera, folder=folder, frames=(frame,)), parts, len(planned))
    return tuple(planned if settings.movie is None else _with_movies(planned, len(frames)))


def _with_movies(planned: Sequence[PlannedUnit], frames: int) -> Iterator[PlannedUnit]:
    """Let a unit for each camera wait for all pictures from it."""
    cameras = {unit.folder: unit.camera for unit in planned}
    position = {folder: len(planned) + index for index, folder in enumerate(cameras)}
    for unit in planned:
        yield replace(unit, feeds=position[unit.folder]) if unit.is_picture else unit
    for folder, camera in cameras.items():
        yield PlannedUnit(kind=UnitKind.ENCODE, camera=camera, folder=folder, share=0.0, inputs=frames)


def _picture(whole: PlannedUnit, parts: Sequence[Part], position: int) -> Iterator[PlannedUnit]:
    """Yield the units of a frame, of which the first has that position in the plan."""
    if not parts:
        yield whole
        return
    for part in parts:
        yield replace(whole, part=part, share=1 / len(parts), feeds=position + len(parts))
    yield replace(whole, kind=UnitKind.MERGE, share=0.0, inputs=len(parts))


def pictures(planned: Iterable[PlannedUnit]) -> int:
    """Return how many pictures a plan makes."""
    return sum(len(unit.frames) for unit in planned if unit.is_picture)


def _early(frames: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first, middle and last frame."""
    return tuple(sorted({frames[0], frames[len(frames) // 2], frames[-1]}, key=frames.index))


def check_settings(settings: RenderSettings, facts: SceneFacts) -> SceneInfo:
    """Return the scene that the settings ask for, having checked every name they use.

    Raises:
        InvalidSettings: a scene, camera or view layer that the file does not have; no camera; a movie format.
        MissingFiles: the scene's files are not all there and the settings do not allow it.
    """
    scene = facts.scene(settings.scene)
    if scene is None:
        raise InvalidSettings(_unknown("scene", settings.scene or facts.active_scene, (s.name for s in facts.scenes)))
    if not scene.cameras:
        raise InvalidSettings(f"scene {scene.name!r} has no camera")
    if settings.camera is None and scene.camera is None:
        raise InvalidSettings(f"scene {scene.name!r} has no active camera; name one of: {_listed(scene.cameras)}")
    if settings.camera not in (None, ALL_CAMERAS, *scene.cameras):
        raise InvalidSettings(_unknown("camera", str(settings.camera), scene.cameras))
    if settings.view_layer not in (None, *scene.view_layers):
        raise InvalidSettings(_unknown("view layer", str(settings.view_layer), scene.view_layers))
    if scene.is_movie and settings.format is None:
        raise InvalidSettings(
            f"scene {scene.name!r} writes a movie ({scene.file_format}); the farm renders single pictures: "
            "give a format such as PNG"
        )
    if facts.missing_files and not settings.allow_missing:
        raise MissingFiles(_missing_message(facts))
    return scene


def task_frames(settings: RenderSettings, scene: SceneInfo) -> tuple[int, ...]:
    """Return the frames of a task: its own, else the scene's range with the scene's step."""
    if settings.frames is not None:
        return parse_frames(settings.frames)
    frames = tuple(range(scene.frame_start, scene.frame_end + 1, max(1, scene.frame_step)))
    if not frames:
        raise InvalidFrames(f"scene {scene.name!r} has an empty frame range ({scene.frame_start} to {scene.frame_end})")
    return frames


def camera_folders(cameras: Sequence[str | None]) -> tuple[str, ...]:
    """Return the output folder of each camera: none for a single one, else its name made safe and unique.

    Blender writes the same file names from every camera, so several cameras need folders of their own.
    """
    if len(cameras) == 1:
        return ("",)
    folders: list[str] = []
    taken: set[str] = set()
    for camera in cameras:
        base = _UNSAFE.sub("_", camera or "camera").strip(" .") or "camera"
        folder, number = base, 2
        while folder.casefold() in taken:
            folder, number = f"{base}-{number}", number + 1
        taken.add(folder.casefold())
        folders.append(folder)
    return tuple(folders)


def task_cameras(settings: RenderSettings, scene: SceneInfo) -> tuple[str | None, ...]:
    """Return the cameras of a task; None: the scene's active one."""
    return tuple(scene.cameras) if settings.camera == ALL_CAMERAS else (settings.camera,)


def _missing_message(facts: SceneFacts) -> str:
    names = [f"{missing.path} ({missing.used_by})" for missing in facts.missing_files]
    return f"{len(names)} missing file{'s' if len(names) > 1 else ''}: {_listed(names)}"


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that ``name`` does not exist, with the nearest names first."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"no {what} named {name!r}; did you mean {_listed(near)}?"
    return f"no {what} named {name!r}; there is: {_listed(names)}"


def _listed(names: Iterable[str], most: int = 8) -> str:
    items = list(names)
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
