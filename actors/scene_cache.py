"""A node's cache of unpacked scenes: each asset's files laid out as they were uploaded, shared by its workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from renderfarm.domain.models import Asset
from renderfarm.ports import Objects

#: A session reads textures long after it has opened its file, so what was used lately is never removed.
_KEEP_S = 3600.0
_TRASH = ".trash-"


class SceneCache:
    """Scenes by asset id. Assets never change, and each file appears whole: one of the right size is right."""

    def __init__(self, root: Path, objects: Objects, bytes_max: int) -> None:
        self._root = root
        self._objects = objects
        self._bytes_max = bytes_max

    def fetch(self, asset: Asset, now: float) -> Path:
        """Return the path of the asset's main file, with all its files in place around it.

        Raises:
            StorageFull: the node's disk is full.
            NotFound: the object store has lost a blob.
        """
        folder = self._root / asset.id
        self.touch(asset.id, now)
        wanting = [file for file in asset.files if _size_bytes(folder / file.path) != file.size_bytes]
        if wanting:
            self._make_room(sum(file.size_bytes for file in wanting), now)
        for file in wanting:
            self._objects.fetch(file.digest, folder / file.path)
            self.touch(asset.id, now)
        return folder / asset.main_file

    def touch(self, asset_id: str, now: float) -> None:
        """Note that a scene is in use."""
        with contextlib.suppress(FileNotFoundError):  # it is still to be fetched
            os.utime(self._root / asset_id, (now, now))

    def _make_room(self, size_bytes: int, now: float) -> None:
        """Remove the scenes that were used longest ago, as far as needed and safe."""
        self._root.mkdir(parents=True, exist_ok=True)
        for trash in self._root.glob(f"{_TRASH}*"):  # left by a worker that was killed meanwhile
            shutil.rmtree(trash, ignore_errors=True)
        scenes = [folder for folder in self._root.iterdir() if not folder.name.startswith(".")]
        sizes_bytes = {folder: _tree_bytes(folder) for folder in scenes}
        excess_bytes = sum(sizes_bytes.values()) + size_bytes - self._bytes_max
        for folder in sorted(scenes, key=_used_at):
            # Asked again just before the removal, as other workers use the cache, too.
            if excess_bytes <= 0 or _used_at(folder) > now - _KEEP_S:
                return
            self._remove(folder)
            excess_bytes -= sizes_bytes[folder]

    def _remove(self, folder: Path) -> None:
        """Take a scene out of sight at once, so that nobody finds half of it; then remove it."""
        trash = self._root / f"{_TRASH}{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another worker has just removed it
        return 0.0


def _size_bytes(path: Path) -> int | None:
    """Return a file's size; None if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _tree_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, of which some may vanish while it is walked."""
    paths = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(_size_bytes(path) or 0 for path in paths)
