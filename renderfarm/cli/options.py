"""Options that several commands share, and the render settings that they add up to."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

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
from renderfarm.errors import InvalidSettings

_SCENE_PANEL = "What to render (default: as the file says)"

Scene = Annotated[Path, typer.Argument(metavar="SCENE.blend", help="The scene.", show_default=False)]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)]
UnitId = Annotated[str | None, typer.Option("--unit", metavar="UNIT", help="A unit's id.")]
Json = Annotated[bool, typer.Option("--json", help="Write only JSON to stdout.")]
Name = Annotated[str | None, typer.Option("--name", help="The task's name (default: the file's).")]
Priority = Annotated[int, typer.Option("--priority", min=0, max=100, help="Higher goes first.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Render although files are missing.")]


def _setting(*names: str, text: str, metavar: str | None = None, **kind: Any) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=_SCENE_PANEL, show_default=False, **kind)


Frames = Annotated[str | None, _setting("--frames", "-f", metavar="FRAMES", text="Frames, as 1-24,30,40-60x5.")]
Camera = Annotated[str | None, _setting("--camera", metavar="NAME", text="A camera, or all.")]
SceneName = Annotated[str | None, _setting("--scene", metavar="NAME", text="A scene of the file.")]
ViewLayer = Annotated[str | None, _setting("--view-layer", metavar="NAME", text="A view layer.")]
EngineName = Annotated[Engine | None, _setting("--engine", text="Render engine.", case_sensitive=False)]
Samples = Annotated[int | None, _setting("--samples", metavar="N", text="Samples for each pixel.")]
Resolution = Annotated[str | None, _setting("--resolution", metavar="1920x1080", text="Size in pixels.")]
Percent = Annotated[int | None, _setting("--percent", metavar="N", text="Scale of the resolution.")]
Format = Annotated[ImageFormat | None, _setting("--format", text="Format of the files.", case_sensitive=False)]
DeviceName = Annotated[Device, _setting("--device", text="What renders: auto, cpu or gpu.", case_sensitive=False)]
Movie = Annotated[
    MovieFormat | None, _setting("--movie", text="Make a movie of each camera's frames, too.", case_sensitive=False)
]
KeepData = Annotated[
    PersistentData,
    _setting("--persistent-data", text="Keep render data between frames: auto, on, off or file.", case_sensitive=False),
]
SplitFrames = Annotated[
    str, _setting("--split", metavar="HOW", text="Several workers for one frame: auto, none, tiles:N or samples:N.")
]
Flawed = Annotated[
    FlawedFrames,
    _setting(
        "--flawed", text="Frames that look wrong: flag tells, retry renders them once more.", case_sensitive=False
    ),
]
BlenderVersion = Annotated[str | None, _setting("--blender", metavar="VERSION", text="A Blender version, as 4.5.")]
FrameTimeout = Annotated[
    float | None, _setting("--frame-timeout", metavar="SECONDS", text="The longest a frame takes.")
]

_RESOLUTION = re.compile(r"(\d{1,9})[xX×](\d{1,9})", re.ASCII)


def parse_resolution(text: str | None) -> tuple[int | None, int | None]:
    """Return width and height in pixels of ``1920x1080``.

    Raises:
        InvalidSettings: it is written otherwise.
    """
    if text is None:
        return None, None
    match = _RESOLUTION.fullmatch(text.strip())
    if match is None:
        raise InvalidSettings(f"{text[:40]!r} is not a resolution; write 1920x1080")
    return int(match[1]), int(match[2])


def takes_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command all the options of render settings in the place of its parameter ``settings``."""
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(_settings, eval_str=True).parameters

    @functools.wraps(command)
    def with_settings(**given: Any) -> int:
        settings = _settings(**{name: given.pop(name) for name in shared})
        return command(settings=settings, **given)

    rest = [parameter for name, parameter in own.parameters.items() if name != "settings"]
    # The scene comes first, then what to render, then everything else.
    ordered = [rest[0], *shared.values(), *rest[1:]]
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in ordered]
    with_settings.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
    with_settings.__annotations__ = {parameter.name: parameter.annotation for parameter in named} | {"return": int}
    return with_settings


def _settings(
    *,
    frames: Frames = None,
    camera: Camera = None,
    scene_name: SceneName = None,
    view_layer: ViewLayer = None,
    engine: EngineName = None,
    samples: Samples = None,
    resolution: Resolution = None,
    percent: Percent = None,
    image_format: Format = None,
    movie: Movie = None,
    device: DeviceName = Device.AUTO,
    persistent_data: KeepData = PersistentData.AUTO,
    split: SplitFrames = Split.AUTO,
    flawed: Flawed = FlawedFrames.FLAG,
    blender: BlenderVersion = None,
    frame_timeout: FrameTimeout = None,
    allow_missing: AllowMissing = False,
) -> RenderSettings:
    width_px, height_px = parse_resolution(resolution)
    return RenderSettings(
        frames=frames,
        camera=camera,
        scene=scene_name,
        view_layer=view_layer,
        engine=engine,
        samples=samples,
        resolution_x_px=width_px,
        resolution_y_px=height_px,
        percent=percent,
        format=image_format,
        movie=movie,
        device=device,
        persistent_data=persistent_data,
        split=split,
        flawed=flawed,
        blender=blender,
        allow_missing=allow_missing,
        frame_timeout_s=frame_timeout,
    )


def settings_json(settings: RenderSettings) -> dict[str, Any]:
    """Return the settings as the API takes them."""
    return {name: value for name, value in asdict(settings).items() if value is not None}
