"""Unpacking a zip that somebody may have made to do harm."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from renderfarm.errors import InvalidAsset
from renderfarm.services.archives import unpack_project

MIB = 2**20


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def unpack(archive: Path, *, main: str | None = None, bytes_max: int = 256 * MIB, files_max: int = 100) -> str:
    return unpack_project(archive, archive.parent / "out", main=main, bytes_max=bytes_max, files_max=files_max)


def refuse(archive: Path, message: str, **options: int) -> None:
    """Check the refusal: its one line, an empty target, and nothing new beside it."""
    before = set(archive.parent.iterdir())
    with pytest.raises(InvalidAsset, match=message) as caught:
        unpack(archive, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list((archive.parent / "out").iterdir()) == []
    assert set(archive.parent.iterdir()) - before <= {archive.parent / "out"}


# --- what is good --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_project_is_unpacked(tmp_path: Path, method: int) -> None:
    files = {"scene.blend": b"blend", "textures/wood ä.png": b"png" * 1000, "./deep/er/x.exr": b""}
    assert unpack(make_zip(tmp_path / "a.zip", files, method)) == "scene.blend"
    for name, data in files.items():
        assert (tmp_path / "out" / name).read_bytes() == data


@pytest.mark.parametrize(
    ("names", "main", "expected"),
    [
        (["a.blend", "b.blend"], "b.blend", "b.blend"),
        (["a.blend", "b.blend"], "./b.blend", "b.blend"),
        (["lib/only.BLEND", "tex.png"], None, "lib/only.BLEND"),
        (["scene.blend", "lib/chair.blend"], None, "scene.blend"),
        (["proj/scene.blend", "proj/lib/chair.blend", "proj/t.png"], None, "proj/scene.blend"),
        (["scene.blend", "__MACOSX/._scene.blend"], None, "scene.blend"),
    ],
)
def test_main_file(tmp_path: Path, names: list[str], main: str | None, expected: str) -> None:
    archive = make_zip(tmp_path / "a.zip", dict.fromkeys(names, b"x"))
    assert unpack(archive, main=main) == expected


@pytest.mark.parametrize(
    ("names", "main", "message"),
    [
        (["a.blend", "b.blend"], None, "several .blend files; say which .* 'a.blend', 'b.blend'"),
        (["a.blend"], "c.blend", "no .blend file named 'c.blend'; there is: 'a.blend'"),
        (["a.png"], None, "has no .blend file"),
        (["a.blend", "t.png"], "t.png", "no .blend file named"),
    ],
)
def test_no_main_file(tmp_path: Path, names: list[str], main: str | None, message: str) -> None:
    archive = make_zip(tmp_path / "a.zip", dict.fromkeys(names, b"x"))
    with pytest.raises(InvalidAsset, match=message):
        unpack(archive, main=main)
    assert list((tmp_path / "out").iterdir()) == []


def test_target_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not empty"):
        unpack(make_zip(tmp_path / "a.zip", {"a.blend": b""}))
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.txt", "leaves the project"),
        ("a/../../evil.txt", "leaves the project"),
        ("a/..", "leaves the project"),
        ("/etc/passwd", "absolute"),
        ("C:/evil.txt", "absolute"),
        ("c:evil.txt", "absolute"),
        ("..\\evil.txt", "backslash"),
        ("a\\b.txt", "backslash"),
        ("a\nb.txt", "control characters"),
        ("a\x1b[31m.txt", "control characters"),
        ("x" * 256, "too long"),
        ("/".join(["d" * 100] * 11), "too long"),
        ("A.BLEND", "twice"),
        ("a.blend", "twice"),
        ("./a.blend", "twice"),
        ("a.blend/inside.txt", "file and a folder"),
        ("TEX/other.png", "upper and lower case"),
    ],
)
def test_name_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.blend", b"fine")
        archive.writestr("tex/wood.png", b"fine")
        if name == "a.blend":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr(name, b"again")
        else:
            archive.writestr(name, b"evil")
    refuse(tmp_path / "a.zip", message)


def test_name_with_nul(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"a.blend": b"x", "evil.txtXjpg": b"x"})
    raw = (tmp_path / "a.zip").read_bytes().replace(b"evil.txtXjpg", b"evil.txt\0jpg")
    (tmp_path / "a.zip").write_bytes(raw)
    refuse(tmp_path / "a.zip", "control characters")


# --- kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "special"), (stat.S_IFCHR, "special"), (stat.S_IFSOCK, "special")],
)
def test_special_file(tmp_path: Path, kind: int, message: str) -> None:
    info = zipfile.ZipInfo("thing")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.blend", b"x")
        archive.writestr(info, b"/etc/passwd")
    refuse(tmp_path / "a.zip", f"'thing' .*{message}")


def test_encrypted_member(tmp_path: Path) -> None:
    raw = bytearray(make_zip(tmp_path / "a.zip", {"a.blend": b"x"}).read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    refuse(tmp_path / "a.zip", "encrypted")


def test_unusual_compression(tmp_path: Path) -> None:
    refuse(make_zip(tmp_path / "a.zip", {"a.blend": b"x"}, zipfile.ZIP_LZMA), "unusual")


# --- sizes ---------------------------------------------------------------------------------------------------


def test_too_many_members(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {f"{number}.blend": b"" for number in range(11)})
    refuse(archive, "11 members, more than 10", files_max=10)


def test_directory_too_long_to_read(tmp_path: Path) -> None:
    """The end record promises a directory of 2 GiB; a sparse file has it."""
    path = tmp_path / "a.zip"
    with path.open("wb") as archive:
        archive.truncate(2**31)
        archive.seek(2**31)
        archive.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 2**31, 0, 0))
    refuse(path, "too many members")


def test_declared_size_beyond_the_limit(tmp_path: Path) -> None:
    refuse(make_zip(tmp_path / "a.zip", {"a.blend": bytes(2 * MIB)}), "more than 1048576 bytes", bytes_max=MIB)


def test_ratio(tmp_path: Path) -> None:
    bomb = make_zip(tmp_path / "a.zip", {"a.blend": bytes(80 * MIB)}, zipfile.ZIP_DEFLATED)
    refuse(bomb, "more than 250 times its size")


def patch_directory(path: Path, name: bytes, offset: int, layout: str, value: int) -> None:
    """Overwrite a field in the central directory's entry of a member."""
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") if name == b"" else 0)
    while raw[entry + 46 : entry + 46 + len(name)] != name:
        entry = raw.index(b"PK\x01\x02", entry + 4)
    struct.pack_into(layout, raw, entry + offset, value)
    path.write_bytes(raw)


def test_member_larger_than_it_says_is_cut_and_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.blend": bytes(MIB)}, zipfile.ZIP_DEFLATED)
    patch_directory(path, b"a.blend", 24, "<L", 10)
    refuse(path, "CRC", bytes_max=1000)


def test_member_smaller_than_it_says(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.blend": b"x" * 1000}, zipfile.ZIP_DEFLATED)
    patch_directory(path, b"a.blend", 24, "<L", 2000)
    refuse(path, "has 1000 bytes where the zip promises 2000")


def test_overlapping_members(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.blend": b"x" * 1000, "b.png": b"y" * 1000})
    patch_directory(path, b"b.png", 42, "<L", 0)
    refuse(path, "overlaps")


# --- damage --------------------------------------------------------------------------------------------------


def test_wrong_checksum(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"fine.txt": b"fine", "a.blend": b"x" * 1000})
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"xxyx", 1))
    refuse(path, "CRC-32 for file 'a.blend'")


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04" + bytes(100)])
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refuse(tmp_path / "a.zip", "not a readable zip archive")


def test_no_cut_of_a_zip_is_more_than_refused(tmp_path: Path) -> None:
    files = {"a.blend": b"x" * 300, "t/b.png": b"y" * 300}
    whole = make_zip(tmp_path / "w.zip", files, zipfile.ZIP_DEFLATED).read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "a.zip").write_bytes(whole[:size])
        refuse(tmp_path / "a.zip", "zip")


def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """Every single damaged byte: either refused in one line, or the project is unpacked with the right contents."""
    files = {"a.blend": b"x" * 40, "t/b.png": b"y" * 40}
    whole = make_zip(tmp_path / "w.zip", files, zipfile.ZIP_DEFLATED).read_bytes()
    refusals = []
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        (tmp_path / "a.zip").write_bytes(damaged)
        target = tmp_path / f"out{position}"
        try:
            unpack_project(tmp_path / "a.zip", target, main=None, bytes_max=MIB, files_max=9)
        except InvalidAsset as error:
            refusals.append(str(error))
        # Nothing where it was refused.
        assert {path.read_bytes() for path in target.rglob("*") if path.is_file()} <= set(files.values())
    assert len(refusals) > 100
    assert not [message for message in refusals if "\n" in message]
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("out")} == {"a.zip", "w.zip"}
