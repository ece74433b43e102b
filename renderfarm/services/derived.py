"""What is made of a task's outputs when somebody asks for it, and kept in the data folder to be given again.

Each file is named by all that it depends on, so it is never out of date. Several processes may make the same at once,
or have folders of their own: whoever is last puts the same there. All of it can be lost at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from renderfarm.errors import FarmUnavailable, StorageFull
from renderfarm.ports import Farm

#: Goes up when the same would be made otherwise.
_RECIPE = 1
#: Making sweeps so often: the folder may grow by as many files before it is looked at.
_SWEEP_SHARE = 0.01
#: What was asked for so lately may be about to be read.
_FRESH_S = 600.0
_SCRATCH = ".scratch-"


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A file that can be made at any time."""

    key: str
    """Stands for all that it depends on: see ``key_of``."""
    suffix: str
    """With its dot."""
    make: Callable[[Path, Path], None]
    """Writes the file to a path, where it must appear as a whole; the second path is an empty folder to work in."""


def key_of(*parts: object) -> str:
    """Return a name, 64 hexadecimal digits, for what can be written as JSON."""
    return hashlib.sha256(json.dumps([_RECIPE, *parts], sort_keys=True).encode()).hexdigest()


def kept(farm: Farm, derived: Derived) -> bytes | None:
    """Return the file if it is there."""
    path = _path(farm, derived)
    try:
        os.utime(path)
        return path.read_bytes()
    except FileNotFoundError:
        return None


def made(farm: Farm, derived: Derived) -> Path:
    """Return where the file is; it is made if it is not there.

    Raises:
        StorageFull, FarmUnavailable: the data folder does not take it.
        RenderfarmError: what ``make`` raises.
    """
    path = _path(farm, derived)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if farm.random() < _SWEEP_SHARE:
            sweep(_folder(farm), farm.settings.thumbnails_max_bytes)
        with _scratch(_folder(farm)) as scratch:
            derived.make(path, scratch)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("no room left in the data folder for small pictures") from error
        raise FarmUnavailable(f"the data folder does not take small pictures: {error.strerror or error}") from error
    return path


def sweep(folder: Path, bytes_max: int) -> None:
    """Remove what was asked for longest ago, so that the rest takes no more than nine tenths of a size."""
    now = time.time()
    found: list[tuple[float, int, Path]] = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
            stat = path.stat()
            if path.is_dir():
                if path.name.startswith(_SCRATCH) and stat.st_mtime < now - _FRESH_S:
                    shutil.rmtree(path, ignore_errors=True)
            else:
                found.append((stat.st_mtime, stat.st_size, path))
    size_bytes = sum(size for _, size, _ in found)
    if size_bytes <= bytes_max:
        return
    for asked_at, size, path in sorted(found):
        if size_bytes <= 0.9 * bytes_max or asked_at > now - _FRESH_S:
            return
        path.unlink(missing_ok=True)
        size_bytes -= size


def _folder(farm: Farm) -> Path:
    return farm.settings.data / "thumbnails"


def _path(farm: Farm, derived: Derived) -> Path:
    return _folder(farm) / derived.key[:2] / f"{derived.key}{derived.suffix}"


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as path:
        yield Path(path)
