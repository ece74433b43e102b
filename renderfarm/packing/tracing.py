"""What both lines of blender-asset-tracer are used for, and the zip that is made with them."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

_UDIM = "<UDIM>"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One place in a .blend file, or in a library it links, that names files outside."""

    written: str
    """The path as written in the file."""
    used_by: str
    """For people: ``Image "wood"``."""
    files: tuple[Path, ...]
    """Absolute paths that exist; none: missing."""


class Tracer(Protocol):
    """Knows one .blend file."""

    @property
    def blend(self) -> Path: ...
    def usages(self) -> list[Usage]:
        """List what the file and its libraries name, packed data and unused libraries left out."""

    def rewrite(self, project: Path) -> dict[Path, Path]:
        """Copy each .blend that names files by absolute paths, with relative ones instead; return the copies.

        The relative paths hold for as long as files keep their places below ``project``, which holds them all.
        """


def open_tracer(blend: Path, scratch: Path) -> Tracer:
    """Open a .blend with the blender-asset-tracer that is installed; ``scratch`` takes rewritten copies."""
    if int(version("blender-asset-tracer").split(".")[0]) >= 2:
        from renderfarm.packing.bat2 import BlenderTracer

        return BlenderTracer(blend, scratch)
    from renderfarm.packing.bat1 import ReadingTracer

    return ReadingTracer(blend, scratch)


def expand(path: Path, *, is_sequence: bool) -> tuple[Path, ...]:
    """Return the existing files that a path stands for: itself, UDIM tiles, a numbered sequence or a folder's files.

    A sequence is every file with the same name around its last digits; more than Blender will read, perhaps, but
    never less.
    """
    if _UDIM in path.name:
        return _matching(path, re.escape(path.name).replace(_UDIM, r"\d{4}"))
    if path.is_dir():
        return tuple(sorted(file for file in path.rglob("*") if file.is_file())) if is_sequence else ()
    numbered = re.fullmatch(r"(.*?)\d+(\D*)", path.name) if is_sequence else None
    if numbered:
        return _matching(path, rf"{re.escape(numbered[1])}\d+{re.escape(numbered[2])}")
    if is_sequence and "*" in path.name:
        return tuple(sorted(file for file in path.parent.glob(path.name) if file.is_file()))
    return (path,) if path.is_file() else ()


def _matching(path: Path, pattern: str) -> tuple[Path, ...]:
    names = re.compile(pattern)
    try:
        return tuple(sorted(file for file in path.parent.iterdir() if names.fullmatch(file.name) and file.is_file()))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def write_project(tracer: Tracer, files: Sequence[Path], target: Path) -> str:
    """Write the .blend and ``files`` to a zip that mirrors their folders; return the .blend's name in it."""
    project = common_folder([tracer.blend, *files])
    rewritten = tracer.rewrite(project)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted({tracer.blend, *files}):
            # The same project gives the same bytes whenever it is packed: no dates.
            info = zipfile.ZipInfo(file.relative_to(project).as_posix(), date_time=_EPOCH)
            info.external_attr = 0o644 << 16
            info.file_size = (source := rewritten.get(file, file)).stat().st_size
            with source.open("rb") as data, archive.open(info, "w") as member:
                while chunk := data.read(2**20):
                    member.write(chunk)
    return tracer.blend.relative_to(project).as_posix()


def common_folder(files: Iterable[Path]) -> Path:
    """Return the deepest folder that holds all files; they are absolute."""
    return Path(os.path.commonpath([file.parent for file in files]))
