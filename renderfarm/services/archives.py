"""Unpacking a project that came as a zip, which is taken for hostile until it is unpacked.

Nothing is written outside the target folder, nothing of a refused archive is left in it, and neither the archive's
own figures nor its size decide how much memory or disk is used: bytes are counted as they are written.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from renderfarm.errors import InvalidAsset, StorageFull

NAME_BYTES_MAX, PART_BYTES_MAX = 1024, 255
#: Beyond this size an archive may not unpack to more than so many times its own bytes (deflate can reach 1032).
RATIO_MAX, RATIO_FROM_BYTES = 250, 64 * 2**20

_CHUNK_BYTES = 2**20
#: Space for a member in the archive's directory: 46 bytes, its name and what else the packer noted.
_DIRECTORY_BYTES_PER_FILE, _DIRECTORY_BYTES_LEAST = 512, 2**20
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DOS_REPARSE_POINT = 0x400
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DRIVE = re.compile(r"^[A-Za-z]:")
#: macOS packs the Finder's notes of each file into a folder of this name; they are no part of the project.
_MACOS_NOTES = "__MACOSX"


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A file or folder of the archive whose name has been found harmless."""

    info: zipfile.ZipInfo
    path: PurePosixPath


def unpack_project(archive: Path, target: Path, *, main: str | None, bytes_max: int, files_max: int) -> str:
    """Unpack a zip into ``target``, an empty or new folder; return the main .blend's path in it, with ``/``.

    The main file is the one named by ``main``, else the only .blend, else the only one at the top of the project.

    Raises:
        InvalidAsset: not a zip, damaged, hostile, larger than the limits, or without a main file. ``target`` is
            empty again.
        StorageFull: no room for the files. ``target`` is empty again.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(f"{target} is not empty")
    try:
        return _unpack(archive, target, main, bytes_max, files_max)
    except BaseException:
        _empty(target)
        raise


def _unpack(archive: Path, target: Path, main: str | None, bytes_max: int, files_max: int) -> str:
    try:
        with _Bounded(archive, files_max) as stream, zipfile.ZipFile(stream) as project:
            members = _members(project, files_max)
            main_file = _main_file([str(member.path) for member in members if not member.info.is_dir()], main)
            _check_sizes(members, archive.stat().st_size, bytes_max)
            _extract(project, members, target, _Budget(archive.stat().st_size, bytes_max))
    except (zipfile.BadZipFile, EOFError, zlib.error, struct.error, NotImplementedError, ValueError) as error:
        raise InvalidAsset(f"not a readable zip archive: {_one_line(error)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("no room left to unpack the project") from error
        raise
    return main_file


# --- what the directory says ---------------------------------------------------------------------------------


def _members(project: zipfile.ZipFile, files_max: int) -> list[_Member]:
    infos = project.infolist()
    if len(infos) > files_max:
        raise InvalidAsset(f"the zip has {len(infos)} members, more than {files_max}")
    members = []
    for info in infos:
        path = _harmless_path(info)
        if path.parts and path.parts[0] != _MACOS_NOTES:
            _check_kind(info)
            members.append(_Member(info=info, path=path))
    _check_distinct(members)
    return members


def _harmless_path(info: zipfile.ZipInfo) -> PurePosixPath:
    """Return a member's path below the project; raise InvalidAsset where it would mean something else to anybody."""
    # orig_filename is what the archive says; zipfile cuts filename at a NUL.
    name = info.orig_filename
    if not name or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise _refused(name, "has control characters in its name")
    if "\\" in name:
        raise _refused(name, "has a backslash in its name")
    if name.startswith("/") or _DRIVE.match(name):
        raise _refused(name, "has an absolute path")
    parts = name.split("/")
    if ".." in parts:
        raise _refused(name, "leaves the project with '..'")
    if len(name.encode()) > NAME_BYTES_MAX or any(len(part.encode()) > PART_BYTES_MAX for part in parts):
        raise _refused(name, "has a name too long")
    return PurePosixPath(name)


def _check_kind(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK or info.external_attr & _DOS_REPARSE_POINT:
        raise _refused(info.filename, "is a link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > info.is_dir():
        raise _refused(info.filename, "is a special file")
    if info.is_dir() and info.file_size:
        raise _refused(info.filename, "is a folder with contents of its own")
    if info.flag_bits & _ENCRYPTED:
        raise _refused(info.filename, "is encrypted")
    if info.compress_type not in _METHODS:
        raise _refused(info.filename, "is compressed in an unusual way; pack with deflate or store")


def _check_distinct(members: Sequence[_Member]) -> None:
    """Refuse names that are one name on some system, and files that are also folders."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for member in members:
        name = str(member.path)
        key = _key(name)
        if not member.info.is_dir():
            if key in files:
                raise _refused(name, "is there twice")
            files[key] = name
        above = member.path.parents if not member.info.is_dir() else (member.path, *member.path.parents)
        for folder in above:
            if folders.setdefault(_key(str(folder)), str(folder)) != str(folder):
                raise _refused(name, "is in a folder that is there twice, in upper and lower case")
    for key in files.keys() & folders.keys():
        raise _refused(files[key], "is a file and a folder")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check_sizes(members: Sequence[_Member], archive_bytes: int, bytes_max: int) -> None:
    """Refuse what the directory already admits: too much, or members that share bytes of the archive."""
    if sum(member.info.file_size for member in members) > bytes_max:
        raise _too_large(bytes_max)
    end, before = 0, ""
    for info in sorted((member.info for member in members), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise _refused(info.filename, f"overlaps {_shown(before)}")
        end = info.header_offset + _LOCAL_HEADER_BYTES + len(info.orig_filename) + info.compress_size
        before = info.filename
    if end > archive_bytes:
        raise InvalidAsset("not a readable zip archive: it is truncated")


# --- the main file -------------------------------------------------------------------------------------------


def _main_file(files: Sequence[str], main: str | None) -> str:
    blends = [name for name in files if name.lower().endswith(".blend")]
    if main is not None:
        wanted = str(PurePosixPath(main))
        if wanted in blends:
            return wanted
        raise InvalidAsset(f"the zip has no .blend file named {_shown(main)}; {_listed(blends)}")
    top = _common_folder(files)
    at_top = [name for name in blends if PurePosixPath(name).parent == top]
    if len(blends) == 1:
        return blends[0]
    if len(at_top) == 1:
        return at_top[0]
    if not blends:
        raise InvalidAsset("the zip has no .blend file")
    raise InvalidAsset(f"the zip has several .blend files; say which is the main one; {_listed(blends)}")


def _common_folder(files: Sequence[str]) -> PurePosixPath:
    """Return the deepest folder that holds everything: people pack the folder as often as what is in it."""
    first, last = min(files, default=""), max(files, default="")
    common = []
    for one, other in zip(PurePosixPath(first).parent.parts, PurePosixPath(last).parent.parts, strict=False):
        if one != other:
            break
        common.append(one)
    return PurePosixPath(*common)


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "there is: " + (", ".join(_shown(name) for name in sorted(names)[:most]) or "none") + more


# --- the bytes -----------------------------------------------------------------------------------------------


class _Budget:
    """Counts the bytes that come out of an archive."""

    def __init__(self, archive_bytes: int, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._ratio_bytes_max = max(RATIO_FROM_BYTES, archive_bytes * RATIO_MAX)
        self._spent = 0

    def spend(self, count: int) -> None:
        self._spent += count
        if self._spent > self._bytes_max:
            raise _too_large(self._bytes_max)
        if self._spent > self._ratio_bytes_max:
            raise InvalidAsset(f"the zip unpacks to more than {RATIO_MAX} times its size")


def _extract(project: zipfile.ZipFile, members: Iterable[_Member], target: Path, budget: _Budget) -> None:
    for member in members:
        path = target.joinpath(*member.path.parts)
        if member.info.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        _extract_file(project, member.info, path, budget)


def _extract_file(project: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, budget: _Budget) -> None:
    written = 0
    with project.open(info) as source, path.open("xb") as copy:
        while chunk := source.read(_CHUNK_BYTES):
            written += len(chunk)
            budget.spend(len(chunk))
            copy.write(chunk)
    if written != info.file_size:
        raise _refused(info.filename, f"has {written} bytes where the zip promises {info.file_size}")


class _Bounded(io.BufferedReader):
    """A file that refuses to be read in large pieces: zipfile reads the whole directory at once, however long."""

    def __init__(self, path: Path, files_max: int) -> None:
        super().__init__(io.FileIO(path))
        self._read_bytes_max = _DIRECTORY_BYTES_LEAST + files_max * _DIRECTORY_BYTES_PER_FILE

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._read_bytes_max:
            raise InvalidAsset("the zip has too many members")
        return super().read(size)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


# --- words ---------------------------------------------------------------------------------------------------


def _refused(name: str, why: str) -> InvalidAsset:
    return InvalidAsset(f"the zip's member {_shown(name)} {why}")


def _too_large(bytes_max: int) -> InvalidAsset:
    return InvalidAsset(f"the zip unpacks to more than {bytes_max} bytes")


def _shown(name: str) -> str:
    """Return a name fit for one line: control characters escaped, and not endless."""
    return repr(name if len(name) <= 100 else name[:97] + "...").encode(errors="backslashreplace").decode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
