"""What a task may ask for beyond what its file says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from renderfarm.domain.frames import parse_frames
from renderfarm.errors import InvalidSettings


class Engine(StrEnum):
    CYCLES = "cycles"
    EEVEE = "eevee"
    WORKBENCH = "workbench"


class ImageFormat(StrEnum):
    PNG = "PNG"
    JPEG = "JPEG"
    OPEN_EXR = "OPEN_EXR"
    OPEN_EXR_MULTILAYER = "OPEN_EXR_MULTILAYER"
    TIFF = "TIFF"
    WEBP = "WEBP"


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


ALL_CAMERAS = "all"
#: Blender's own limits for scene.render.resolution_x/y and resolution_percentage.
RESOLUTION_MIN_PX, RESOLUTION_MAX_PX = 4, 65536
PERCENT_MAX = 32767
SAMPLES_MAX = 16_777_216


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """A task's own settings. ``None`` everywhere means: as the file says.

    Raises:
        InvalidFrames, InvalidSettings: on construction, when no scene could satisfy them.
    """

    frames: str | None = None
    """A frame range as ``parse_frames`` reads it."""
    camera: str | None = None
    """A camera's name, or ``all`` for every camera of the scene."""
    scene: str | None = None
    view_layer: str | None = None
    engine: Engine | None = None
    samples: int | None = None
    resolution_x_px: int | None = None
    resolution_y_px: int | None = None
    percent: int | None = None
    format: ImageFormat | None = None
    device: Device = Device.AUTO
    blender: str | None = None
    """The Blender version wanted, as ``4.5`` or ``4.5.15``."""
    allow_missing: bool = False
    """Render although files that the scene names are missing."""
    frame_timeout_s: float | None = None
    """The longest one frame may take; ``None``: the farm's own limit."""
    no_progress_timeout_s: float | None = None
    """The longest Blender may stay silent; ``None``: the farm's own limit."""

    def __post_init__(self) -> None:
        if self.frames is not None:
            parse_frames(self.frames)
        if (self.resolution_x_px is None) != (self.resolution_y_px is None):
            raise InvalidSettings("a resolution needs both width and height")
        _check_range("width", self.resolution_x_px, RESOLUTION_MIN_PX, RESOLUTION_MAX_PX)
        _check_range("height", self.resolution_y_px, RESOLUTION_MIN_PX, RESOLUTION_MAX_PX)
        _check_range("percent", self.percent, 1, PERCENT_MAX)
        _check_range("samples", self.samples, 1, SAMPLES_MAX)
        for name in ("frame_timeout_s", "no_progress_timeout_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidSettings(f"{name} must be a positive number of seconds")


def _check_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidSettings(f"{name} must be between {low} and {high}, not {value}")
