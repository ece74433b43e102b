"""What inspecting a scene in Blender finds out: the facts that planning builds on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SceneInfo:
    """One scene of a .blend file."""

    name: str
    engine: str
    """Blender's identifier, for example ``CYCLES`` or ``BLENDER_EEVEE_NEXT``."""
    frame_start: int
    frame_end: int
    frame_step: int
    frame_current: int
    fps: float
    resolution_x_px: int
    resolution_y_px: int
    percent: int
    cameras: tuple[str, ...]
    """Names of the camera objects in this scene, sorted."""
    camera: str | None
    """The active camera's name."""
    view_layers: tuple[str, ...]
    file_format: str
    """Blender's identifier of the output format, for example ``PNG`` or ``FFMPEG``."""
    is_movie: bool
    """The output format is a movie, which cannot be rendered frame by frame."""
    output_path: str
    """The file's own output path, unexpanded: ``//render/shot_`` or ``/tmp/``."""
    samples: int | None
    """Render samples of the scene's engine; ``None`` where the engine has none."""


@dataclass(frozen=True, kw_only=True)
class MissingFile:
    """A file that the scene names and that is not there."""

    path: str
    """As written in the .blend file."""
    used_by: str
    """The data-block that names it, for example ``Image "wood"``."""


@dataclass(frozen=True, kw_only=True)
class SceneFacts:
    """Everything inspect learns of one .blend file."""

    blender_version: str
    """The Blender that inspected it, for example ``4.5.15``."""
    file_version: str
    """The Blender that wrote it, for example ``4.5`` (patch levels are not stored in files)."""
    active_scene: str
    scenes: tuple[SceneInfo, ...]
    missing_files: tuple[MissingFile, ...]
    libraries: tuple[str, ...]
    """Linked .blend libraries as the file names them."""
    memory_bytes: int
    """Peak resident memory of Blender after opening the file."""
    has_scripts: bool
    """The file carries scripts or drivers that would need auto-run, which the farm keeps off."""

    def scene(self, name: str | None) -> SceneInfo | None:
        """Return the scene of that name (``None``: the active one), or None if there is no such scene."""
        wanted = self.active_scene if name is None else name
        return next((scene for scene in self.scenes if scene.name == wanted), None)
