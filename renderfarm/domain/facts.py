"""What inspecting a scene in Blender finds out: the facts that planning builds on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How a scene's light becomes display colours: Blender's Color Management panel. The defaults are a new scene's."""

    display: str = "sRGB"
    """Name of the display device."""
    view: str = "AgX"
    """Name of the view transform."""
    look: str = "None"
    exposure: float = 0.0
    """In stops."""
    gamma: float = 1.0
    is_whole: bool = True
    """False: the scene also has curves or a white balance, which only Blender itself applies."""


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
    fps_base: float = 1.0
    """What divides Blender's whole frames a second, already applied in ``fps``: 1.001 for 23.976."""
    view_settings: ViewSettings | None = None
    """What the written pictures are seen through; ``None``: inspected before anybody looked."""
    uses_adaptive_sampling: bool = False
    """Cycles stops early where it finds that enough."""
    denoises: bool = False
    """Cycles denoises at least one of the view layers."""
    wants_gpu: bool = False
    """The file asks Cycles for a GPU."""
    denoises_on_gpu: bool = False
    """Where there is one; Cycles denoises on the CPU otherwise, whatever it renders on."""
    split_obstacles: tuple[str, ...] | None = None
    """Why its frames cannot be split without a trace, in words for people, as far as the file tells.

    ``None``: inspected before anybody looked.
    """
    denoising_obstacles: tuple[str, ...] = ()
    """The same, if it denoises."""
    sample_obstacles: tuple[str, ...] = ()
    """The same, for ranges of samples."""


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
