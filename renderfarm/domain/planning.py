"""From a task's settings and its scene's facts to units."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.frames import FRAMES_PER_TASK_MAX, parse_frames
from renderfarm.domain.render_settings import ALL_CAMERAS, RenderSettings
from renderfarm.errors import InvalidFrames, InvalidSettings, MissingFiles

#: Frames in one unit. One, so that a failure costs one frame.
FRAMES_PER_UNIT = 1

_UNSAFE = re.compile(r"[^\w.\- ]", re.UNICODE)


@dataclass(frozen=True, kw_only=True)
class PlannedUnit:
    """A render unit before it has an identity."""

    camera: str | None
    folder: str
    frames: tuple[int, ...]


def plan(settings: RenderSettings, facts: SceneFacts) -> tuple[PlannedUnit, ...]:
    """Split a task into render units, cameras outermost, frames ascending.

    Raises:
        InvalidSettings, InvalidFrames, MissingFiles: the scene cannot satisfy the settings.
    """
    scene = check_settings(settings, facts)
    frames = task_frames(settings, scene)
    cameras = _cameras(settings, scene)
    if len(frames) * len(cameras) > FRAMES_PER_TASK_MAX:
        raise InvalidFrames(
            f"{len(frames)} frames from {len(cameras)} cameras are more than {FRAMES_PER_TASK_MAX} pictures"
        )
    folders = camera_folders(cameras)
    return tuple(
        PlannedUnit(camera=camera, folder=folder, frames=chunk)
        for camera, folder in zip(cameras, folders, strict=True)
        for chunk in _chunks(frames, FRAMES_PER_UNIT)
    )


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


def _cameras(settings: RenderSettings, scene: SceneInfo) -> tuple[str | None, ...]:
    return tuple(scene.cameras) if settings.camera == ALL_CAMERAS else (settings.camera,)


def _chunks(frames: tuple[int, ...], size: int) -> Iterable[tuple[int, ...]]:
    return (frames[start : start + size] for start in range(0, len(frames), size))


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
