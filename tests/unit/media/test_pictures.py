"""Opening pictures: every format that the farm stores, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from renderfarm.errors import BadPicture
from renderfarm.media.pictures import open_picture
from tests.unit.media.picture_files import write, write_parts

_HEIGHT, _WIDTH = 12, 20


def noise(channels: int, depth: str) -> NDArray[Any]:
    values = np.random.default_rng(channels).random((_HEIGHT, _WIDTH, channels))
    if depth.startswith("uint"):
        values = np.round(values * np.iinfo(depth).max)
    else:
        values = values * 4 - 1
    pixels: NDArray[Any] = values.astype(depth)
    return pixels


@pytest.mark.parametrize(
    ("name", "channels", "depth"),
    [
        ("a.png", 1, "uint8"),
        ("a.png", 3, "uint8"),
        ("a.png", 4, "uint8"),
        ("a.png", 3, "uint16"),
        ("a.png", 4, "uint16"),
        ("a.tif", 3, "uint8"),
        ("a.tif", 4, "uint8"),
        ("a.tif", 1, "uint16"),
        ("a.exr", 3, "float16"),
        ("a.exr", 4, "float16"),
        ("a.exr", 4, "float32"),
    ],
)
def test_a_lossless_picture_is_read_as_it_was_written(tmp_path: Path, name: str, channels: int, depth: str) -> None:
    pixels = noise(channels, depth)
    picture = open_picture(write(tmp_path / name, pixels))
    assert picture.pixels.dtype == depth
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert (picture.width_px, picture.height_px) == (_WIDTH, _HEIGHT)
    assert picture.depth_bits == pixels.dtype.itemsize * 8
    assert picture.channels == {1: ("Y",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}[channels]
    assert picture.is_linear == name.endswith("exr")
    assert picture.is_premultiplied == (picture.is_linear and channels == 4)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_a_lossy_picture_is_near_what_was_written(tmp_path: Path, name: str) -> None:
    pixels = np.full((_HEIGHT, _WIDTH, 3), (200, 100, 50), np.uint8)
    picture = open_picture(write(tmp_path / name, pixels))
    assert picture.channels == ("R", "G", "B")
    assert np.abs(picture.pixels.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_alpha_is_not_multiplied_into_display_colours(tmp_path: Path, name: str) -> None:
    pixels = np.full((_HEIGHT, _WIDTH, 4), (200, 100, 50, 51), np.uint8)
    picture = open_picture(write(tmp_path / name, pixels, compression="lossless" if name.endswith("webp") else "zip"))
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert not picture.is_premultiplied
    assert picture.colours(premultiplied=True)[0, 0] == pytest.approx(np.array([200, 100, 50]) / 255 * 0.2)
    alpha = picture.alpha()
    assert alpha is not None
    assert alpha[0, 0] == pytest.approx(0.2)


def test_colours_are_divided_by_alpha_where_it_is_in_them(tmp_path: Path) -> None:
    # As Blender writes 16-bit TIFF.
    pixels = np.full((_HEIGHT, _WIDTH, 4), (0x4000, 0x2000, 0, 0x8000), np.uint16)
    pixels[0] = (100, 0, 0, 0)
    picture = open_picture(write(tmp_path / "a.tif", pixels, is_premultiplied=True))
    assert picture.is_premultiplied
    colours = picture.colours(premultiplied=False)
    assert colours[1, 0] == pytest.approx([0.5, 0.25, 0], abs=1e-4)
    assert colours[0, 0] == pytest.approx([100 / 65535, 0, 0])


def test_grey_has_three_equal_colours(tmp_path: Path) -> None:
    pixels = noise(1, "uint8")
    colours = open_picture(write(tmp_path / "a.png", pixels)).colours(premultiplied=False)
    np.testing.assert_array_equal(colours, np.repeat(pixels / np.float32(255), 3, axis=2))


# --- layers ---------------------------------------------------------------------------------------------------


def layered(tmp_path: Path, *layers: str) -> Path:
    """Write one part with the channels of each ``Layer.Pass``, valued by its place."""
    names = tuple(f"{layer}.{channel}" for layer in layers for channel in ("Z" if "Depth" in layer else "RGBA"))
    values = [index + 1.0 for index, layer in enumerate(layers) for _ in ("Z" if "Depth" in layer else "RGBA")]
    return write(tmp_path / "a.exr", np.full((4, 6, len(names)), values, np.float32), names)


@pytest.mark.parametrize(
    ("layers", "beauty"),
    [
        (("ViewLayer.AO", "ViewLayer.Combined", "ViewLayer.Depth"), 2),
        (("A.Combined", "ViewLayer.Combined"), 1),
        (("A.Combined", "Composite.Combined", "ViewLayer.Combined"), 2),
        (("A.Depth", "A.Combined.left", "A.Combined.right"), 2),
        (("A.Depth", "A.Normal"), 2),
        (("odd.name.Combined",), 1),
    ],
)
def test_the_beauty_of_layers_is_the_composite_or_the_first_combined(
    tmp_path: Path, layers: tuple[str, ...], beauty: int
) -> None:
    picture = open_picture(layered(tmp_path, *layers))
    assert picture.channels == ("R", "G", "B", "A")
    assert (picture.pixels == beauty).all()


def test_the_beauty_is_found_in_the_parts_of_a_file(tmp_path: Path) -> None:
    # As Blender 5 writes layers, in the order of the scene.
    parts = [
        (np.full((4, 6, 1), 1, np.float32), ("ViewLayer.Depth.Z",)),
        (np.full((4, 6, 4), 2, np.float32), tuple(f"ViewLayer.Combined.{c}" for c in "RGBA")),
        (np.full((4, 6, 4), 3, np.float32), tuple(f"A.Combined.{c}" for c in "RGBA")),
    ]
    picture = open_picture(write_parts(tmp_path / "a.exr", parts))
    assert (picture.pixels == 2).all()
    assert picture.pixels.shape == (4, 6, 4)


@pytest.mark.parametrize("name", ["V", "Depth.Z"])
def test_a_single_channel_is_grey(tmp_path: Path, name: str) -> None:
    picture = open_picture(write(tmp_path / "a.exr", np.full((4, 6, 1), 3, np.float32), (name,)))
    assert picture.channels == ("Y",)
    assert (picture.colours(premultiplied=False) == 3).all()


# --- broken files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "depth", "compression"),
    [
        ("a.png", 4, "uint8", None),
        ("a.png", 3, "uint16", None),
        ("a.jpg", 3, "uint8", None),
        ("a.tif", 3, "uint8", "zip"),
        ("a.webp", 4, "uint8", "lossless"),
        ("a.webp", 3, "uint8", None),
        ("a.exr", 4, "float16", "zip"),
        ("a.exr", 4, "float32", "none"),
        ("a.exr", 3, "float16", "dwaa"),
    ],
)
def test_a_file_cut_anywhere_is_a_bad_picture(
    tmp_path: Path, name: str, channels: int, depth: str, compression: str | None
) -> None:
    whole = write(tmp_path / name, noise(channels, depth), compression=compression).read_bytes()
    lengths = {*range(0, len(whole), max(1, len(whole) // 150)), *range(len(whole) - 30, len(whole))}
    for length in lengths:
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(BadPicture):
            open_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.exr"])
def test_a_file_whose_rest_is_zeros_is_a_bad_picture(tmp_path: Path, name: str) -> None:
    # What a crash leaves of a file whose blocks were not yet on the disk.
    whole = write(tmp_path / name, noise(3, "float16" if name.endswith("exr") else "uint8")).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    with pytest.raises(BadPicture):
        open_picture(tmp_path / name)


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.png", noise(4, "uint8")).read_bytes()
    for place in range(whole.index(b"IDAT"), whole.index(b"IEND"), 17):
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(BadPicture):
            open_picture(tmp_path / "a.png")


def test_the_error_is_one_line_without_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadPicture, match=r"^a\.png is truncated, corrupt or no picture: ") as caught:
        open_picture(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "a.png")
