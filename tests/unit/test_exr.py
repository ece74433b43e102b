"""The little OpenEXR of Blender's side, held against OpenImageIO's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from blender_runtime.exr import BadExr, read_header, read_plain, write_plain

RANDOM = np.random.default_rng(1)
#: A layer with dots in its name, a name longer than the 31 bytes of old files, and one that is not ASCII.
NAMES = ("a.b.Combined.R", "a.b.Combined.A", "A name of more than thirty-one bytes.Depth.Z", "Ébene.Normal.X")
CHANNELS = {name: RANDOM.random((5, 7), np.float32) for name in NAMES}
CHANNELS["a.b.Combined.R"][1, 2] = np.nan
CHANNELS["a.b.Combined.R"][0, 0] = -np.inf


def write_with_oiio(path: Path, compression: str, kind: str = "float") -> Path:
    spec = oiio.ImageSpec(7, 5, len(NAMES), kind)
    spec.channelnames = NAMES
    spec.attribute("compression", compression)
    spec.attribute("cycles.a.b.samples", "64")
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec), output.geterror()
    assert output.write_image(np.dstack([CHANNELS[name] for name in NAMES]))
    assert output.close()
    return path


def test_what_is_written_others_read(tmp_path: Path) -> None:
    write_plain(tmp_path / "a.exr", CHANNELS, {"cycles.a.b.samples": "64"})
    picture = oiio.ImageBuf(str(tmp_path / "a.exr"))
    pixels = picture.get_pixels(oiio.FLOAT)
    assert pixels is not None
    assert picture.spec().get_string_attribute("cycles.a.b.samples") == "64"
    assert set(picture.spec().channelnames) == set(NAMES)
    for index, name in enumerate(picture.spec().channelnames):
        assert np.array_equal(pixels[:, :, index], CHANNELS[name], equal_nan=True)


def test_what_others_write_is_read(tmp_path: Path) -> None:
    path = write_with_oiio(tmp_path / "a.exr", "none")
    assert read_header(path).texts["cycles.a.b.samples"] == "64"
    found = read_plain(path)
    assert found.keys() == CHANNELS.keys()
    for name, pixels in found.items():
        assert np.array_equal(pixels, CHANNELS[name], equal_nan=True)


def test_headers_of_compressed_files_are_read(tmp_path: Path) -> None:
    header = read_header(write_with_oiio(tmp_path / "a.exr", "zip"))
    assert (header.width_px, header.height_px, header.channels) == (7, 5, tuple(sorted(NAMES)))


@pytest.mark.parametrize(("compression", "kind"), [("zip", "float"), ("none", "half")])
def test_only_plain_files_are_read(tmp_path: Path, compression: str, kind: str) -> None:
    with pytest.raises(BadExr):
        read_plain(write_with_oiio(tmp_path / "a.exr", compression, kind))


@pytest.mark.parametrize("size_bytes", [0, 3, 8, 40, 200, 500, -1])
def test_truncated_files_are_told(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "a.exr"
    write_plain(path, CHANNELS, {})
    path.write_bytes(path.read_bytes()[:size_bytes])
    with pytest.raises(BadExr):
        read_plain(path)


def test_other_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(BadExr):
        read_header(path)
