"""Thumbnails and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from renderfarm.domain.facts import ViewSettings
from renderfarm.errors import BadPicture, InvalidSettings
from renderfarm.media.digits import HEIGHT_PX, WIDTH_PX, drawn_number
from renderfarm.media.display import Display, srgb_encoded
from renderfarm.media.pictures import open_picture
from renderfarm.media.thumbnails import contact_sheet, thumbnail
from tests.unit.media.picture_files import blender_config, grey, write


def seen(path: Path) -> NDArray[np.float32]:
    return open_picture(path).colours(premultiplied=False)


def made(
    source: Path, suffix: str = ".webp", side_px: int = 512, display: Display | None = None
) -> NDArray[np.float32]:
    target = source.with_name(f"thumbnail{suffix}")
    thumbnail(source, target, side_px=side_px, display=display)
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([source.name, target.name])
    return seen(target)


# --- thumbnails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
@pytest.mark.parametrize(
    ("size", "small"), [((540, 960), (288, 512)), ((900, 300), (512, 171)), ((18, 32), (18, 32)), ((3, 4000), (1, 512))]
)
def test_the_longer_side_fits(tmp_path: Path, suffix: str, size: tuple[int, int], small: tuple[int, int]) -> None:
    shown = made(write(tmp_path / "a.png", np.full((*size, 3), (200, 120, 60), np.uint8)), suffix)
    assert shown.shape == (*small, 3)
    assert np.abs(shown * 255 - (200, 120, 60)).max() <= 4


def test_a_large_picture_is_its_small_self(tmp_path: Path) -> None:
    # A ramp to the right and downwards; the size is no multiple of the thumbnail's.
    rows, columns = np.linspace(0, 1, 701), np.linspace(0, 1, 1501)
    pixels = np.stack(np.broadcast_arrays(columns[None], rows[:, None], 0.5), axis=2)
    shown = made(write(tmp_path / "a.png", np.round(pixels * 65535).astype(np.uint16)), ".jpg", 150)
    assert shown.shape == (70, 150, 3)
    expected = np.stack(np.broadcast_arrays(np.linspace(0, 1, 150)[None], np.linspace(0, 1, 70)[:, None], 0.5), axis=2)
    assert np.abs(shown - expected)[2:-2, 2:-2].max() < 0.03


def test_grey_is_grey(tmp_path: Path) -> None:
    shown = made(write(tmp_path / "a.png", np.full((40, 60, 1), 90, np.uint8)))
    assert np.abs(shown * 255 - 90).max() <= 2


def test_transparency_shows_a_checkerboard(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 4), (255, 0, 0, 255), np.uint8)
    pixels[:32] = (0, 255, 0, 0)
    shown = made(write(tmp_path / "a.png", pixels))
    above = shown[:24].mean(axis=2)
    assert np.ptp(shown[:24], axis=2).max() < 0.1  # grey, without the green of what is not there
    assert above.max() - above.min() > 0.08
    assert abs(above[4, 4] - above[4, 12]) > 0.05
    assert np.abs(shown[40:] - (1, 0, 0)).max() < 0.05


@pytest.mark.parametrize("view", ["Standard", "AgX"])
def test_light_is_seen_through_the_scenes_view(tmp_path: Path, view: str) -> None:
    display = Display(config=blender_config(), settings=ViewSettings(view=view))
    light = np.full((300, 400, 3), (0.6, 0.2, 0.05), np.float32)
    shown = made(write(tmp_path / "a.exr", light), side_px=100, display=display)
    assert np.abs(shown - display.encode(light[:1, :1])[0, 0]).max() < 0.015


def test_light_is_shown_by_the_srgb_curve_without_a_view(tmp_path: Path) -> None:
    light = np.full((300, 400, 4), (0.3, 0.1, 0.025, 0.5), np.float16)
    light[:, :, 3] = 1
    shown = made(write(tmp_path / "a.exr", light), side_px=100)
    assert np.abs(shown - srgb_encoded(light[:1, :1, :3].astype(np.float32))[0, 0]).max() < 0.015


def test_a_glaring_pixel_stays_a_pixel(tmp_path: Path) -> None:
    light = np.full((512, 512, 3), 0.05, np.float32)
    light[200:202, 200:202] = 60000
    shown = made(write(tmp_path / "a.exr", light), side_px=64)
    bright = np.argwhere(shown[:, :, 0] > 0.5)
    assert len(bright) <= 1
    assert np.abs(shown[:20] - srgb_encoded(light[:1, :1])[0, 0]).max() < 0.015


def test_what_is_no_number_spoils_no_thumbnail(tmp_path: Path) -> None:
    light = np.full((300, 400, 3), 0.2, np.float32)
    light[100, 100], light[50, 50] = np.nan, np.inf
    shown = made(write(tmp_path / "a.exr", light), side_px=100)
    assert np.abs(np.median(shown) - srgb_encoded(light[:1, :1])[0, 0, 0]) < 0.015


def test_a_broken_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(0.4))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadPicture):
        thumbnail(path, tmp_path / "b.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(0.4))
    with pytest.raises(InvalidSettings, match=r"not '\.bmp'"):
        thumbnail(path, tmp_path / "b.bmp")
    with pytest.raises(FileNotFoundError):
        thumbnail(path, tmp_path / "nowhere" / "b.webp")


# --- contact sheets ---------------------------------------------------------------------------------------------


def test_a_sheet_shows_every_frame_in_order(tmp_path: Path) -> None:
    frames = {frame: write(tmp_path / f"{frame}.png", grey(frame / 10, 90, 160)) for frame in (9, 1, 3, 5, 7)}
    contact_sheet(frames, tmp_path / "sheet.webp")
    sheet = seen(tmp_path / "sheet.webp")
    # Three columns: a cell is the picture and a gap of 8 wide, the picture, its number and a gap high.
    step_x_px, step_y_px = 160 + 8, 90 + 7 * 2 + 6 + 8
    assert sheet.shape == (2 * step_y_px + 8, 3 * step_x_px + 8, 3)
    middles = [sheet[53 + row * step_y_px, 88 + column * step_x_px, 0] for row in range(2) for column in range(3)]
    assert middles == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9, 0.12], abs=0.02)


def test_the_number_is_under_its_picture(tmp_path: Path) -> None:
    contact_sheet({-107: write(tmp_path / "a.png", grey(0.5, 90, 160))}, tmp_path / "sheet.jpg")
    sheet = seen(tmp_path / "sheet.jpg")
    label = drawn_number(-107, 2)
    left = 8 + (160 - label.shape[1]) // 2
    drawn = sheet[102 : 102 + label.shape[0], left : left + label.shape[1], 0]
    assert ((drawn > 0.5) == (label == 1)).mean() > 0.97


def test_of_many_frames_some_are_chosen_evenly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(0.5))
    broken = tmp_path / "broken.png"
    broken.touch()
    # Whatever is not chosen would be red.
    frames = dict.fromkeys(range(100, 1000), broken) | dict.fromkeys((100, 400, 699, 999), path)
    contact_sheet(frames, tmp_path / "sheet.webp", pictures_max=4)
    sheet = seen(tmp_path / "sheet.webp")
    assert np.ptp(sheet, axis=2).max() < 0.05


def test_hundreds_of_frames_fit_on_a_sheet(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(0.5, 108, 192))
    contact_sheet(dict.fromkeys(range(1, 121), path), tmp_path / "sheet.webp")
    height, width, _ = seen(tmp_path / "sheet.webp").shape
    assert 1500 < width <= 1920
    assert height <= 1920


def test_pictures_of_several_shapes_share_a_sheet(tmp_path: Path) -> None:
    frames = {
        1: write(tmp_path / "1.png", grey(0.5, 300, 200)),
        2: write(tmp_path / "2.png", grey(0.5, 100, 900)),
        3: write(tmp_path / "3.exr", np.full((20, 30, 4), 0.2, np.float32)),
    }
    contact_sheet(frames, tmp_path / "sheet.webp")
    assert seen(tmp_path / "sheet.webp").shape[1] == 2 * (384 + 8) + 8


def test_a_broken_picture_is_a_red_field(tmp_path: Path) -> None:
    broken = tmp_path / "2.png"
    broken.write_bytes(b"no picture")
    contact_sheet({1: write(tmp_path / "1.png", grey(0.5, 90, 160)), 2: broken}, tmp_path / "sheet.webp")
    sheet = seen(tmp_path / "sheet.webp")
    assert sheet[53, 88] == pytest.approx([0.5] * 3, abs=0.02)
    assert sheet[53, 88 + 168] == pytest.approx([0.55, 0.1, 0.1], abs=0.05)


def test_a_sheet_of_broken_pictures_is_a_sheet(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    contact_sheet({1: tmp_path / "1.png"}, tmp_path / "sheet.webp")
    assert seen(tmp_path / "sheet.webp")[40, 40, 0] == pytest.approx(0.55, abs=0.05)


def test_a_sheet_needs_frames(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings):
        contact_sheet({}, tmp_path / "sheet.webp")


# --- digits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -5, 1234567890])
def test_a_number_is_drawn_in_its_size(number: int) -> None:
    signs = len(str(number))
    drawn = drawn_number(number, 3)
    assert drawn.shape == (HEIGHT_PX * 3, ((WIDTH_PX + 1) * signs - 1) * 3)
    assert set(np.unique(drawn)) == {0, 1}


def test_no_two_digits_look_alike() -> None:
    assert len({drawn_number(digit, 1).tobytes() for digit in range(10)}) == 10
