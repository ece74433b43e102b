from __future__ import annotations

from typing import Any

import pytest

from renderfarm.domain.render_settings import (
    PERCENT_MAX,
    RESOLUTION_MAX_PX,
    RESOLUTION_MIN_PX,
    SAMPLES_MAX,
    Device,
    RenderSettings,
)
from renderfarm.errors import InvalidFrames, InvalidSettings


def test_nothing_given_means_as_the_file_says() -> None:
    settings = RenderSettings()
    assert settings.device is Device.AUTO
    assert not settings.allow_missing
    assert {getattr(settings, name) for name in ("frames", "camera", "scene", "engine", "format", "samples")} == {None}


@pytest.mark.parametrize(
    "given",
    [
        {"resolution_x_px": RESOLUTION_MIN_PX, "resolution_y_px": RESOLUTION_MAX_PX},
        {"percent": 1},
        {"percent": PERCENT_MAX},
        {"samples": 1},
        {"samples": SAMPLES_MAX},
        {"frame_timeout_s": 0.1},
        {"frames": "-5--1,7-20x3"},
    ],
)
def test_takes_what_blender_can_do(given: dict[str, Any]) -> None:
    settings = RenderSettings(**given)
    assert all(getattr(settings, name) == value for name, value in given.items())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"resolution_x_px": 1920}, "both width and height"),
        ({"resolution_y_px": 1080}, "both width and height"),
        (
            {"resolution_x_px": RESOLUTION_MIN_PX - 1, "resolution_y_px": 1080},
            "width must be between 4 and 65536, not 3",
        ),
        ({"resolution_x_px": 1920, "resolution_y_px": RESOLUTION_MAX_PX + 1}, "height must be between"),
        ({"resolution_x_px": -1920, "resolution_y_px": 1080}, "width must be between"),
        ({"percent": 0}, "percent must be between 1 and"),
        ({"percent": PERCENT_MAX + 1}, "percent must be between"),
        ({"samples": 0}, "samples must be between"),
        ({"samples": SAMPLES_MAX + 1}, "samples must be between"),
        ({"split": "tiles:1"}, "'tiles:1' is no way to split: .* N from 2 to 256"),
        ({"split": "samples:257"}, "'samples:257' is no way to split: .* N from 2 to 256"),
        ({"frame_timeout_s": 0.0}, "frame_timeout_s must be a positive number"),
        ({"frame_timeout_s": float("inf")}, "frame_timeout_s must be a positive number"),
        ({"no_progress_timeout_s": float("nan")}, "no_progress_timeout_s must be a positive number"),
        ({"no_progress_timeout_s": -1.0}, "no_progress_timeout_s must be a positive number"),
    ],
)
def test_refuses_what_no_scene_could_satisfy(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidSettings, match=reason):
        RenderSettings(**given)


def test_refuses_frames_that_nobody_can_render() -> None:
    with pytest.raises(InvalidFrames, match="backwards"):
        RenderSettings(frames="10-1")
