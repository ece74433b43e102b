"""A node's cache of unpacked scenes: each asset's files laid out as they were uploaded, shared by its workers."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from renderfarm.domain.models import Asset
from renderfarm.ports import Objects

#: A session reads textures long after it has opened its file, so what was used lately is never removed.
_KEEP_S = 3600.0


class SceneCache:
    """Scenes by asset id. Assets never change, so a folder that is there is right."""

    def __init__(self, root: Path, objects: Objects, bytes_max: int) -> None:
        self._root = root
        self._objects = objects
        self._bytes_max = bytes_max
        root.mkdir(parents=True, exist_ok=True)

    def fetch(self, asset: Asset, now: float) -> Path:
        """Return the path of the asset's main file, with all its files in place around it.

        Raises:
            StorageFull: the node's disk is full.
            NotFound: the object store has lost a blob.
        """
        folder = self._root / asset.id
        if not folder.is_dir():
            self._make_room(asset.size_bytes, now)
            self._lay_out(asset, folder)
        os.utime(folder, (now, now))
        return folder / asset.main_file

    def _lay_out(self, asset: Asset, folder: Path) -> None:
        partial = Path(tempfile.mkdtemp(dir=self._root, prefix=".partial-"))
        try:
            for file in asset.files:
                self._objects.fetch(file.digest, partial / file.path)
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another worker of this node was faster
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _make_room(self, size_bytes: int, now: float) -> None:
        """Remove the scenes that were used longest ago, as far as needed and safe."""
        scenes = sorted((folder.stat().st_mtime, folder) for folder in self._root.iterdir() if folder.is_dir())
        kept_bytes = sum(_tree_bytes(folder) for _, folder in scenes)
        for used_at, folder in scenes:
            if kept_bytes + size_bytes <= self._bytes_max or used_at > now - _KEEP_S:
                return
            kept_bytes -= _tree_bytes(folder)
            shutil.rmtree(folder)


def _tree_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
