"""The little of OpenEXR that merging needs and Blender's Python lacks: headers, and files without compression.

Layout as in "OpenEXR File Layout" (https://openexr.com/en/latest/OpenEXRFileLayout.html).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 20000630
#: Version 2 of the format; names of up to 255 bytes instead of 31.
_VERSION, _LONG_NAMES = 2, 0x400
#: Parts or deep pixels, which nothing here is made of.
_UNUSUAL = 0x800 | 0x1000
_FLOAT, _NO_COMPRESSION = 2, 0


class BadExr(Exception):
    """Not a file of the kind that is read here."""

    kind = "storage"
    """A ``renderfarm.domain.failures.FailureKind``."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself."""

    width_px: int
    height_px: int
    channels: tuple[str, ...]
    """Sorted by name, as in every file."""
    texts: dict[str, str]
    """Attributes of the type string."""


def read_header(path: str | Path) -> Header:
    """Return the header of a file of one part, whatever its compression.

    Raises:
        BadExr: it is no such file.
    """
    with Path(path).open("rb") as file:
        header, _ = _header(file)
    return header


def read_plain(path: str | Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the channels of a file of 32-bit floats without compression, each of shape (height, width).

    They are read from the file when they are used.

    Raises:
        BadExr: it is no such file.
    """
    with Path(path).open("rb") as file:
        header, attributes = _header(file)
        start = file.tell() + 8 * header.height_px  # after the table of offsets: all lines are equally long
        size_bytes = file.seek(0, 2)
    if attributes["compression"] != bytes([_NO_COMPRESSION]):
        raise BadExr(f"{path} is compressed")
    line = _line_type(header.width_px, header.channels)
    if size_bytes != start + line.itemsize * header.height_px:
        raise BadExr(f"{path} is truncated, or not of 32-bit floats")
    lines = np.memmap(path, line, "r", start, (header.height_px,))
    return {name: lines["pixels"][:, index] for index, name in enumerate(header.channels)}


def write_plain(
    path: str | Path, channels: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]], texts: Mapping[str, str]
) -> None:
    """Write 32-bit floats without compression.

    Args:
        path: the file.
        channels: by name, each of shape (height, width); the first row is the top of the picture.
        texts: attributes of the type string.
    """
    names = sorted(channels)
    height, width = channels[names[0]].shape
    lines = np.empty(height, _line_type(width, tuple(names)))
    lines["y"], lines["size"] = np.arange(height), lines["pixels"][0].nbytes
    for index, name in enumerate(names):
        lines["pixels"][:, index] = channels[name]
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    head = struct.pack("<2i", _MAGIC, _VERSION | _LONG_NAMES)
    head += _attribute("channels", "chlist", b"".join(_channel(name) for name in names) + b"\0")
    head += _attribute("compression", "compression", bytes([_NO_COMPRESSION]))
    head += _attribute("dataWindow", "box2i", box) + _attribute("displayWindow", "box2i", box)
    head += _attribute("lineOrder", "lineOrder", b"\0")
    head += _attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    head += _attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    head += _attribute("screenWindowWidth", "float", struct.pack("<f", 1))
    head += b"".join(_attribute(name, "string", text.encode()) for name, text in texts.items()) + b"\0"
    first = len(head) + 8 * height
    with Path(path).open("wb") as file:
        file.write(head)
        file.write((first + lines.itemsize * np.arange(height, dtype="<u8")).tobytes())
        file.write(lines.tobytes())


def _line_type(width: int, channels: tuple[str, ...]) -> np.dtype[Any]:
    return np.dtype([("y", "<i4"), ("size", "<i4"), ("pixels", "<f4", (len(channels), width))])


def _channel(name: str) -> bytes:
    return name.encode() + b"\0" + struct.pack("<iiii", _FLOAT, 0, 1, 1)


def _attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def _header(file: BinaryIO) -> tuple[Header, dict[str, bytes]]:
    """Read up to the table of offsets; return also every attribute's bytes."""
    try:
        magic, version = struct.unpack("<2i", file.read(8))
        if magic != _MAGIC or version & _UNUSUAL:
            raise BadExr(f"{file.name} is not an OpenEXR file of one part")
        attributes: dict[str, bytes] = {}
        texts: dict[str, str] = {}
        while name := _text(file):
            kind = _text(file)
            (size,) = struct.unpack("<i", file.read(4))
            attributes[name] = file.read(size)
            if kind == "string":
                texts[name] = attributes[name].decode(errors="surrogateescape")
        left, bottom, right, top = struct.unpack("<4i", attributes["dataWindow"])
        channels = _channels(attributes["channels"])
    except (struct.error, KeyError) as error:
        raise BadExr(f"{file.name} is truncated") from error
    size_px = {"width_px": right - left + 1, "height_px": top - bottom + 1}
    return Header(**size_px, channels=channels, texts=texts), attributes


def _text(file: BinaryIO) -> str:
    """Read up to and with a zero byte."""
    text = b""
    while (byte := file.read(1)) not in (b"", b"\0"):
        text += byte
    return text.decode(errors="surrogateescape")


def _channels(value: bytes) -> tuple[str, ...]:
    names = []
    while value[0]:
        name, _, value = value.partition(b"\0")
        names.append(name.decode(errors="surrogateescape"))
        value = value[16:]
    return tuple(names)
