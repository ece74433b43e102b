"""A scene's external files: which there are, which are missing, and one zip with all of them.

blender-asset-tracer reads the .blend. It does so in a process of its own (``python -m renderfarm.packing``), because
a damaged file may take it down and because its 2.x line, for Python 3.13, is Blender, which prints what it likes.

The zip mirrors the folders below the deepest one that holds every file, so that all relative paths stay true; only
absolute paths are rewritten, in copies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderfarm.domain.facts import MissingFile
from renderfarm.errors import InvalidAsset, MissingFiles, StorageFull

_STDERR_BYTES_KEPT = 2000


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What a .blend file needs beside itself."""

    files: tuple[Path, ...]
    """Absolute paths of external files that exist, linked .blend libraries among them, sorted."""
    missing: tuple[MissingFile, ...]


@dataclass(frozen=True, kw_only=True)
class Package:
    """What is to be uploaded for a scene."""

    file: Path
    """The .blend itself where it needs nothing else, or the zip."""
    main: str | None
    """The .blend's path in the zip; None: ``file`` is the .blend."""
    dependencies: Dependencies


def find_dependencies(blend: Path) -> Dependencies:
    """List the external files of a scene.

    Raises:
        InvalidAsset: blender-asset-tracer cannot read the file.
    """
    return _dependencies(_run(["list", str(blend.absolute())], blend))


def pack_project(blend: Path, target_zip: Path, *, allow_missing: bool = False) -> Package:
    """Write a scene and its external files to ``target_zip``, unless it has none: then the .blend itself will do.

    Raises:
        MissingFiles: the scene names files that do not exist, and ``allow_missing`` is off.
        InvalidAsset: blender-asset-tracer cannot read or rewrite the file.
        StorageFull: no room for the zip.
    """
    options = ["--allow-missing"] if allow_missing else []
    answer = _run(["pack", *options, str(blend.absolute()), str(target_zip.absolute())], blend)
    dependencies = _dependencies(answer)
    if dependencies.missing and not allow_missing:
        raise MissingFiles(missing_message(dependencies.missing))
    if answer["main"] is None:
        return Package(file=blend, main=None, dependencies=dependencies)
    return Package(file=target_zip, main=answer["main"], dependencies=dependencies)


def missing_message(missing: Sequence[MissingFile], most: int = 8) -> str:
    """Say in one line which files are missing."""
    names = [f"{file.path} ({file.used_by})" for file in missing]
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} missing file{'s' if len(names) > 1 else ''}: {', '.join(names[:most])}{more}"


def _dependencies(answer: dict[str, Any]) -> Dependencies:
    return Dependencies(
        files=tuple(Path(path) for path in answer["files"]),
        missing=tuple(MissingFile(path=file["path"], used_by=file["used_by"]) for file in answer["missing"]),
    )


def _run(arguments: list[str], blend: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "renderfarm.packing", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise InvalidAsset(f"cannot find the external files of {blend.name}: {_last_words(done)}") from error
    match answer.get("error"):
        case None:
            return answer
        case {"code": StorageFull.code, "message": message}:
            raise StorageFull(message)
        case {"message": message}:
            raise InvalidAsset(f"cannot find the external files of {blend.name}: {message}")
    raise AssertionError(answer)


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr[-_STDERR_BYTES_KEPT:].decode(errors="replace").strip().splitlines()
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return f"blender-asset-tracer ended with {ended}" + (f" ({lines[-1].strip()})" if lines else "")
