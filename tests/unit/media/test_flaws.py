"""Checks of one picture. Blender's own missing textures are rendered in tests/integration/test_media.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from renderfarm.domain.facts import ViewSettings
from renderfarm.media.display import Display
from renderfarm.media.flaws import FlawKind, picture_flaws
from tests.unit.media.picture_files import blender_config, grey, write

_VIEWS = ("Standard", "Filmic", "AgX", "Khronos PBR Neutral")
_MISSING = (1.0, 0.0, 1.0)
#: Scene-linear reflectances of things that are pink, or nearly, and whole.
_HONEST = {
    "hot pink": (1.0, 0.14, 0.46),
    "deep pink": (1.0, 0.007, 0.29),
    "orchid": (0.7, 0.16, 0.67),
    "violet": (0.85, 0.22, 0.85),
    "lavender": (0.79, 0.79, 0.96),
    "purple": (0.21, 0.0, 0.36),
    "raspberry": (0.77, 0.003, 0.1),
    "skin": (0.75, 0.4, 0.3),
    "blue": (0.02, 0.01, 0.9),
    "red": (0.8, 0.01, 0.01),
    "white": (0.9, 0.9, 0.9),
}


def kinds(path: Path, display: Display | None = None) -> list[FlawKind]:
    return [flaw.kind for flaw in picture_flaws(path, display)]


def light(level: float = 0.2, channels: int = 4) -> NDArray[np.float32]:
    pixels = np.full((18, 32, channels), level, np.float32)
    pixels[:, :, 3:] = 1
    return pixels


def test_a_good_picture_has_none(tmp_path: Path) -> None:
    assert kinds(write(tmp_path / "a.png", grey(0.4))) == []
    assert kinds(write(tmp_path / "a.exr", light())) == []


# --- black, transparent, no numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "is_black"), [(0, True), (1, True), (2, False), (255, False)]
)  # one of 255 is what dithering does to black
def test_all_black(tmp_path: Path, level: int, is_black: bool) -> None:
    pixels = grey(0)
    pixels[5, 7, 1] = level
    assert kinds(write(tmp_path / "a.png", pixels)) == ([FlawKind.BLACK] if is_black else [])


def test_all_black_in_linear_light(tmp_path: Path) -> None:
    assert kinds(write(tmp_path / "a.exr", light(0))) == [FlawKind.BLACK]
    assert kinds(write(tmp_path / "a.exr", light(1e-4))) == [FlawKind.BLACK]
    assert kinds(write(tmp_path / "a.exr", light(2e-3))) == []


def test_black_with_alpha_is_black_unless_nothing_is_there(tmp_path: Path) -> None:
    pixels = np.zeros((18, 32, 4), np.uint8)
    pixels[:, :, :3] = 99
    assert kinds(write(tmp_path / "a.png", pixels)) == [FlawKind.TRANSPARENT]
    pixels[3, 4, 3] = 1
    assert kinds(write(tmp_path / "a.png", pixels)) == [FlawKind.BLACK]
    pixels[3, 4, 3] = 255
    assert kinds(write(tmp_path / "a.png", pixels)) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("depth", ["float16", "float32"])
def test_a_single_pixel_that_is_no_number(tmp_path: Path, value: float, depth: str) -> None:
    pixels = light().astype(depth)
    pixels[11, 30, 2] = value
    (flaw,) = picture_flaws(write(tmp_path / "a.exr", pixels))
    assert flaw.kind is FlawKind.NOT_A_NUMBER
    assert flaw.message == "1 pixel is infinite or not a number, the first at column 30, row 11"


def test_a_picture_of_nan_is_not_black(tmp_path: Path) -> None:
    assert kinds(write(tmp_path / "a.exr", light(math.nan))) == [FlawKind.NOT_A_NUMBER]


def test_a_single_wrong_pixel_of_a_large_picture_is_found(tmp_path: Path) -> None:
    pixels = np.full((1500, 2001, 3), 0.5, np.float16)
    pixels[1001, 1777] = math.nan
    assert kinds(write(tmp_path / "a.exr", pixels)) == [FlawKind.NOT_A_NUMBER]


def test_a_truncated_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(0.4))
    path.write_bytes(path.read_bytes()[:-20])
    (flaw,) = picture_flaws(path)
    assert flaw.kind is FlawKind.TRUNCATED
    assert flaw.message.startswith("a.png is truncated")


# --- missing textures -------------------------------------------------------------------------------------------


def scene(colour: tuple[float, float, float], brightness: float, share: float = 0.1) -> NDArray[np.float32]:
    """Return light: grey surroundings, and a patch of a colour that reflects a little white."""
    pixels = np.full((90, 160, 3), 0.3, np.float32)
    pixels[: round(90 * share)] = (np.array(colour) * 0.96 + 0.04) * brightness
    return pixels


def shown(tmp_path: Path, pixels: NDArray[Any], display: Display | None) -> Path:
    """Write pixels as Blender would: linear for no display, else 8 bits."""
    if display is None:
        return write(tmp_path / "a.exr", pixels)
    return write(tmp_path / "a.png", np.round(display.encode(pixels) * 255).astype(np.uint8))


@pytest.fixture(params=[None, *_VIEWS])
def display(request: pytest.FixtureRequest) -> Display | None:
    if request.param is None:
        return None
    return Display(config=blender_config(), settings=ViewSettings(view=request.param))


@pytest.mark.parametrize("brightness", [0.05, 0.2, 1.0])
def test_a_missing_texture_is_found(tmp_path: Path, display: Display | None, brightness: float) -> None:
    path = shown(tmp_path, scene(_MISSING, brightness), display)
    (flaw,) = picture_flaws(path, display)
    assert flaw.kind is FlawKind.PINK
    assert flaw.message == "10% of the picture has the pink of a missing texture"


def honest(brightness: float) -> NDArray[np.float32]:
    """Return stripes of honest colours, each about a tenth of the picture."""
    stripes = [scene(colour, brightness, share=1)[:8] for colour in _HONEST.values()]
    return np.concatenate(stripes)


@pytest.mark.parametrize("brightness", [0.05, 0.2, 1.0, 4.0])
def test_honest_colours_are_none(tmp_path: Path, display: Display | None, brightness: float) -> None:
    assert kinds(shown(tmp_path, honest(brightness), display), display) == []


@pytest.mark.parametrize("look", ["AgX - Punchy", "AgX - Very High Contrast", "AgX - Very Low Contrast"])
def test_a_missing_texture_is_found_through_a_look(tmp_path: Path, look: str) -> None:
    display = Display(config=blender_config(), settings=ViewSettings(look=look, exposure=0.5))
    assert kinds(shown(tmp_path, scene(_MISSING, 0.4), display), display) == [FlawKind.PINK]
    assert kinds(shown(tmp_path, honest(0.4), display), display) == []


def test_an_unlit_missing_texture_is_found_without_its_view_unless_it_is_agx(tmp_path: Path) -> None:
    for view in ("Standard", "Filmic"):
        display = Display(config=blender_config(), settings=ViewSettings(view=view))
        assert kinds(shown(tmp_path, scene(_MISSING, 0.5), display)) == [FlawKind.PINK]


def test_a_speck_of_pink_is_none(tmp_path: Path) -> None:
    pixels = scene(_MISSING, 0.5, share=0)
    pixels[0, :50] = _MISSING
    assert kinds(write(tmp_path / "a.exr", pixels)) == []
    pixels[1, :50] = _MISSING
    assert kinds(write(tmp_path / "a.exr", pixels)) == [FlawKind.PINK]


def test_pink_where_nothing_is_seen_is_none(tmp_path: Path) -> None:
    pixels = np.full((18, 32, 4), (255, 0, 255, 0), np.uint8)
    pixels[0] = (90, 90, 90, 255)
    assert kinds(write(tmp_path / "a.png", pixels)) == []
    pixels[:9, :, 3] = 255
    assert kinds(write(tmp_path / "a.png", pixels)) == [FlawKind.PINK]


def test_pink_is_measured_in_large_pictures(tmp_path: Path) -> None:
    pixels = np.full((1200, 1600, 3), 77, np.uint8)
    pixels[:300] = (255, 0, 255)
    (flaw,) = picture_flaws(write(tmp_path / "a.png", pixels))
    assert flaw.message.startswith("25% ")
