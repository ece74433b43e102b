"""What makes a file a whole .blend file, in every layout that Blender has written."""

from __future__ import annotations

import gzip
import io
import random
import struct

import pytest
import zstandard

from renderfarm.domain.blend_header import Compression, check_blend, read_blend_header
from renderfarm.errors import InvalidAsset

OLD = b"BLENDER-v405"
NEW = b"BLENDER17-01v0502"


def old_block(code: bytes, data: bytes = b"", *, order: str = "<", pointer: str = "Q") -> bytes:
    return struct.pack(f"{order}4si{pointer}ii", code, len(data), 1, 0, 1) + data


def large_block(code: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<4siQqq", code, 0, 1, len(data), 1) + data


OLD_FILE = OLD + old_block(b"DATA", b"x" * 5000) + old_block(b"DNA1", b"SDNA") + old_block(b"ENDB")
NEW_FILE = NEW + large_block(b"DATA", b"x" * 5000) + large_block(b"DNA1", b"SDNA") + large_block(b"ENDB")
FILE_32_BIT = (
    b"BLENDER_V279" + old_block(b"DNA1", b"SDNA", order=">", pointer="I") + old_block(b"ENDB", order=">", pointer="I")
)


def frames_of(content: bytes) -> bytes:
    """Compress as Blender does: many frames, then a skippable one with the seek table."""
    frames = [zstandard.compress(content[start : start + 1000]) for start in range(0, len(content), 1000)]
    return b"".join(frames) + struct.pack("<II", 0x184D2A5E, 4) + b"seek"


@pytest.mark.parametrize(
    ("content", "version", "compression"),
    [
        (OLD_FILE, "4.5", Compression.NONE),
        (NEW_FILE, "5.2", Compression.NONE),
        (FILE_32_BIT, "2.79", Compression.NONE),
        (frames_of(OLD_FILE), "4.5", Compression.ZSTD),
        (frames_of(NEW_FILE), "5.2", Compression.ZSTD),
        (gzip.compress(OLD_FILE, mtime=0), "4.5", Compression.GZIP),
    ],
)
def test_whole_file(content: bytes, version: str, compression: Compression) -> None:
    header = check_blend(io.BytesIO(content))
    assert (header.version, header.compression) == (version, compression)
    assert read_blend_header(io.BytesIO(content)) == header


def test_bytes_after_the_end_block_are_nobodys_business() -> None:
    check_blend(io.BytesIO(OLD_FILE + b"trailing"))


@pytest.mark.parametrize("content", [OLD_FILE, NEW_FILE, FILE_32_BIT], ids=["old", "new", "32-bit"])
def test_every_truncation_of_a_plain_file_is_noticed(content: bytes) -> None:
    end_block = content.rindex(b"ENDB")
    for size in range(1, end_block + 4):
        with pytest.raises(InvalidAsset, match="truncated"):
            check_blend(io.BytesIO(content[:size]))


@pytest.mark.parametrize("content", [frames_of(NEW_FILE), gzip.compress(OLD_FILE, mtime=0)], ids=["zstd", "gzip"])
def test_truncated_compressed_file(content: bytes) -> None:
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(InvalidAsset, match="truncated"):
            check_blend(io.BytesIO(content[: int(len(content) * share)]))


NOISE = random.Random(7).randbytes(4000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04 a zip", "not a .blend file"),
        (NOISE, "not a .blend file"),
        (b"\x28\xb5\x2f\xfd" + NOISE, "does not uncompress"),
        (b"\x1f\x8b" + NOISE, "does not uncompress"),
        (zstandard.compress(b"nothing of Blender's"), "not a .blend file"),
        (b"BLENDER99-07v0999" + NOISE, "newer than this farm"),
        (OLD + old_block(b"ENDB"), "DNA1"),
        (OLD + struct.pack("<4siQii", b"DATA", -5, 1, 0, 1) + NOISE, "negative length"),
        (OLD + NOISE, "damaged|truncated"),
    ],
)
def test_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidAsset, match=message) as caught:
        check_blend(io.BytesIO(content))
    assert "\n" not in str(caught.value)


def test_bomb_is_left_before_it_is_unpacked() -> None:
    bomb = zstandard.compress(OLD + struct.pack("<4siQii", b"DATA", 2**30, 1, 0, 1) + bytes(50_000_000))
    with pytest.raises(InvalidAsset, match=r"more than 0\.015625 GiB"):
        check_blend(io.BytesIO(bomb), content_bytes_max=2**24)
