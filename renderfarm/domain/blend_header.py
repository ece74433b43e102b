"""Reading the outside of a .blend file without Blender: its version, its compression, and whether it is whole.

The layout is Blender's own (``BLO_core_bhead.hh`` and ``BLO_core_blend_header.hh``): a file header, then blocks, each a
header and so many bytes, up to one called ``ENDB``. Blender 5.0 made both headers longer. Since 3.0 a compressed file
is a row of Zstandard frames, before that it was gzip.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Protocol

import zstandard

from renderfarm.errors import InvalidAsset

#: What a compressed file may unpack to. Blender holds all of it in memory, so more would not open anyway.
CONTENT_BYTES_MAX = 32 * 2**30
#: Heavy production files have some hundred thousand blocks; a file of nothing but blocks is made to waste time.
BLOCKS_MAX = 20_000_000

_CHUNK_BYTES = 2**20
_ZSTD_WINDOW_BYTES_MAX = 2**27
_MAGIC = b"BLENDER"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_OLD_HEADER = re.compile(rb"BLENDER([-_])([vV])(\d{3})", re.ASCII)
_NEW_HEADER = re.compile(rb"BLENDER17-01v(\d{4})", re.ASCII)
_OLD_HEADER_BYTES, _NEW_HEADER_BYTES = 12, 17


class Compression(StrEnum):
    NONE = "none"
    ZSTD = "zstd"
    GZIP = "gzip"


@dataclass(frozen=True, kw_only=True)
class BlendHeader:
    """What a .blend file says of itself in its first bytes."""

    version: str
    """The Blender that wrote it, for example ``4.5`` or ``2.79``; patch levels are not stored."""
    compression: Compression
    pointer_bytes: int
    """4 for files from a 32-bit Blender, else 8."""
    big_endian: bool
    large_blocks: bool
    """Written by Blender 5.0 or later: block lengths have 64 bits."""


class _Content(Protocol):
    """The uncompressed bytes of a file, read forwards only."""

    def read(self, size: int, /) -> bytes: ...
    def skip(self, size: int, /) -> int:
        """Move forwards; return how many bytes there were, less than ``size`` only at the end."""


def read_blend_header(stream: BinaryIO) -> BlendHeader:
    """Read the header of a seekable stream.

    Raises:
        InvalidAsset: the file is empty or does not begin as a .blend file does.
    """
    return _open(stream, CONTENT_BYTES_MAX)[0]


def check_blend(stream: BinaryIO, *, content_bytes_max: int = CONTENT_BYTES_MAX) -> BlendHeader:
    """Walk all blocks of a seekable stream to see that the file is whole; return its header.

    Memory stays bounded whatever the file claims.

    Raises:
        InvalidAsset: empty, not a .blend file, truncated, damaged, or too large once uncompressed.
    """
    header, content = _open(stream, content_bytes_max)
    _walk_blocks(header, content)
    return header


def _open(stream: BinaryIO, content_bytes_max: int) -> tuple[BlendHeader, _Content]:
    compression = _compression(stream)
    content: _Content
    if compression is Compression.NONE:
        content = _Plain(stream)
    else:
        content = _Compressed(stream, compression, content_bytes_max)
    return _parse_header(content, compression), content


def _compression(stream: BinaryIO) -> Compression:
    stream.seek(0)
    start = stream.read(len(_MAGIC))
    stream.seek(0)
    if not start:
        raise InvalidAsset("the file is empty")
    if start == _MAGIC:
        return Compression.NONE
    if start.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if start.startswith(_ZSTD_MAGIC):
        return Compression.ZSTD
    if _MAGIC.startswith(start):
        raise _truncated()
    raise _not_a_blend()


def _parse_header(content: _Content, compression: Compression) -> BlendHeader:
    start = content.read(_OLD_HEADER_BYTES)
    old = _OLD_HEADER.fullmatch(start)
    if old is not None:
        return BlendHeader(
            version=_version(int(old[3])),
            compression=compression,
            pointer_bytes=8 if old[1] == b"-" else 4,
            big_endian=old[2] == b"V",
            large_blocks=False,
        )
    start += content.read(_NEW_HEADER_BYTES - _OLD_HEADER_BYTES)
    new = _NEW_HEADER.fullmatch(start)
    if new is not None:
        return BlendHeader(
            version=_version(int(new[1])), compression=compression, pointer_bytes=8, big_endian=False, large_blocks=True
        )
    if not start.startswith(_MAGIC) and not _MAGIC.startswith(start):
        raise _not_a_blend()
    if len(start) < _NEW_HEADER_BYTES:
        raise _truncated()
    raise InvalidAsset("the .blend file has a header of an unknown kind: damaged, or newer than this farm")


def _version(number: int) -> str:
    """Return 405 as ``4.5`` and 279 as ``2.79``."""
    return f"{number // 100}.{number % 100}"


def _walk_blocks(header: BlendHeader, content: _Content) -> None:
    layout = _block_layout(header)
    has_dna = False
    for _ in range(BLOCKS_MAX):
        head = content.read(layout.size)
        if head[:4] == b"ENDB":
            # Blender stops here, whether or not the rest of this last header was written.
            if not has_dna:
                raise InvalidAsset("the .blend file is damaged: it lacks the block that describes the others (DNA1)")
            return
        if len(head) < layout.size:
            raise _truncated()
        fields = layout.unpack(head)
        length = fields[3] if header.large_blocks else fields[1]
        if length < 0:
            raise InvalidAsset("the .blend file is damaged: a block has a negative length")
        if content.skip(length) < length:
            raise _truncated()
        has_dna = has_dna or fields[0] == b"DNA1"
    raise InvalidAsset(f"the .blend file has more than {BLOCKS_MAX} blocks")


def _block_layout(header: BlendHeader) -> struct.Struct:
    """Code, then length, old pointer, structure, count; large blocks: structure, old pointer, length, count."""
    if header.large_blocks:
        return struct.Struct("<4siQqq")
    return struct.Struct((">" if header.big_endian else "<") + ("4siQii" if header.pointer_bytes == 8 else "4siIii"))


def _truncated() -> InvalidAsset:
    return InvalidAsset("the .blend file is truncated: it ends before its end block")


def _not_a_blend() -> InvalidAsset:
    return InvalidAsset("not a .blend file")


class _Plain:
    """An uncompressed file: skipping is seeking."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        self._position = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        return data

    def skip(self, size: int, /) -> int:
        skipped = min(size, self._size - self._position)
        self._position += skipped
        self._stream.seek(self._position)
        return skipped


class _Compressed:
    """A compressed file, uncompressed piece by piece and never kept."""

    def __init__(self, stream: BinaryIO, compression: Compression, bytes_max: int) -> None:
        self._reader = _decompressor(stream, compression)
        self._bytes_max = bytes_max
        self._position = 0

    def read(self, size: int, /) -> bytes:
        pieces: list[bytes] = []
        while size > 0:
            piece = self._read_piece(min(size, _CHUNK_BYTES))
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int, /) -> int:
        skipped = 0
        while skipped < size:
            piece = self._read_piece(min(size - skipped, _CHUNK_BYTES))
            if not piece:
                break
            skipped += len(piece)
        return skipped

    def _read_piece(self, size: int) -> bytes:
        try:
            piece = self._reader.read(size)
        except EOFError as error:
            raise _truncated() from error
        except (zstandard.ZstdError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidAsset("not a .blend file, or damaged: it does not uncompress") from error
        self._position += len(piece)
        if self._position > self._bytes_max:
            raise InvalidAsset(f"the .blend file uncompresses to more than {self._bytes_max / 2**30:g} GiB")
        return piece


def _decompressor(stream: BinaryIO, compression: Compression) -> BinaryIO:
    if compression is Compression.GZIP:
        return gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[return-value]
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    return decompressor.stream_reader(stream, read_across_frames=True, closefd=False)
