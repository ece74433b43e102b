"""What comes in as JSON. Unknown fields are errors, not silence."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from renderfarm.domain.movies import MovieFormat
from renderfarm.domain.render_settings import (
    Device,
    Engine,
    FlawedFrames,
    ImageFormat,
    PersistentData,
    RenderSettings,
    Split,
)
from renderfarm.services.tasks import PRIORITY_MAX, PRIORITY_MIN

NAME_LENGTH_MAX = 200
#: A frame range written out frame by frame may be long.
_FRAMES_LENGTH_MAX = 200_000


def _no_control_characters(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("must not contain control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX), AfterValidator(_no_control_characters)]
#: JSON has true numbers: "12" and true are not meant as 12 and 1.
Integer = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
FrameRange = Annotated[str, Field(max_length=_FRAMES_LENGTH_MAX, examples=["1-24,30,40-60x5"])]


class SettingsIn(BaseModel):
    """How to render. What is absent or null is as the file says."""

    model_config = ConfigDict(extra="forbid")

    frames: FrameRange | None = Field(default=None, description="A frame range; absent: the scene's own.")
    camera: Name | None = Field(default=None, description="A camera's name, or `all` for every camera of the scene.")
    scene: Name | None = None
    view_layer: Name | None = None
    engine: Engine | None = None
    samples: Integer | None = None
    resolution_x_px: Integer | None = Field(default=None, description="Width; only together with the height.")
    resolution_y_px: Integer | None = Field(default=None, description="Height; only together with the width.")
    percent: Integer | None = Field(default=None, description="Share of the resolution.")
    format: ImageFormat | None = None
    movie: MovieFormat | None = Field(default=None, description="Make a movie of each camera's frames, too.")
    device: Device = Device.AUTO
    persistent_data: PersistentData = Field(
        default=PersistentData.AUTO,
        description="Keep render data between frames: `auto`: where it pays, comparing some with cold ones.",
    )
    split: str = Field(
        default=Split.AUTO,
        max_length=40,
        description="Whether several workers render one frame: `auto`, `none`, `tiles:N` or `samples:N`.",
    )
    flawed: FlawedFrames = Field(
        default=FlawedFrames.FLAG,
        description="What becomes of a frame that looks wrong: `flag` tells, `retry` renders it once more.",
    )
    blender: Name | None = Field(default=None, description="The Blender version wanted.", examples=["4.5"])
    allow_missing: Flag = Field(default=False, description="Render although files that the scene names are missing.")
    frame_timeout_s: Number | None = Field(default=None, description="The longest one frame may take.")
    no_progress_timeout_s: Number | None = Field(default=None, description="The longest Blender may stay silent.")

    def to_domain(self) -> RenderSettings:
        """Raises InvalidFrames or InvalidSettings when no scene could satisfy them."""
        return RenderSettings(**dict(self))


class TaskIn(BaseModel):
    """A task to submit."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "asset_id": "01hzy3v7k2f8",
                    "name": "Turntable",
                    "priority": 50,
                    "settings": {"frames": "1-24", "camera": "Front", "samples": 64, "format": "PNG"},
                }
            ]
        },
    )

    asset_id: Name
    name: Name | None = Field(default=None, description="Absent: the asset's name.")
    priority: int = Field(default=50, strict=True, ge=PRIORITY_MIN, le=PRIORITY_MAX, description="Higher goes first.")
    settings: SettingsIn = Field(default_factory=SettingsIn)


class RetryIn(BaseModel):
    """What to render again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"frames": "3,5"}]})

    frames: FrameRange | None = Field(default=None, description="Absent: every frame that failed or was cancelled.")
