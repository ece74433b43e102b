"""What a task may ask for beyond what its file says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from renderfarm.domain.frames import parse_frames
from renderfarm.domain.movies import MovieFormat
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


class PersistentData(StrEnum):
    """Whether a session keeps Blender's render data between frames (Blender's name: Persistent Data)."""

    AUTO = "auto"
    """Kept where that saves time, and some frames are rendered cold as well and compared: a difference ends it."""
    ON = "on"
    """Kept, and never compared."""
    OFF = "off"
    FILE = "file"
    """As the file says."""


class Split(StrEnum):
    """How a frame is rendered by several workers; besides ``tiles:N`` and ``samples:N``."""

    AUTO = "auto"
    """In tiles, when workers would be idle and it pays; a still that takes long also for one worker, so that it fills
    in."""
    NONE = "none"


class FlawedFrames(StrEnum):
    """What becomes of a frame whose picture looks wrong by itself: all black, pink, and the like."""

    FLAG = "flag"
    """It is told."""
    RETRY = "retry"
    """It is rendered once more, elsewhere if that can be; and told if it is the same again."""


_SPLIT = re.compile(r"auto|none|(tiles|samples):([1-9][0-9]{0,3})")
#: A merge has them all open at once, and processes may have a thousand files.
PARTS_MIN, PARTS_MAX = 2, 256

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
    movie: MovieFormat | None = None
    """Make a movie of each camera's frames, too."""
    device: Device = Device.AUTO
    persistent_data: PersistentData = PersistentData.AUTO
    split: str = Split.AUTO
    """``auto``, ``none``, ``tiles:N`` or ``samples:N``: into how many parts a frame is cut for as many workers."""
    flawed: FlawedFrames = FlawedFrames.FLAG
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
        parts = _SPLIT.fullmatch(self.split)
        if parts is None or (parts[2] and not PARTS_MIN <= int(parts[2]) <= PARTS_MAX):
            raise InvalidSettings(
                f"{self.split[:40]!r} is no way to split: "
                f"write auto, none, tiles:N or samples:N, N from {PARTS_MIN} to {PARTS_MAX}"
            )
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
