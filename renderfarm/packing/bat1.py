"""blender-asset-tracer 1.x, which reads .blend files itself."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from renderfarm.packing.tracing import Usage, expand

# By name, because a type checker sees the one line of the tracer that is installed, and this may be the other.
_pack: Any = import_module("blender_asset_tracer.pack")
_trace: Any = import_module("blender_asset_tracer.trace")

#: Names of Blender's data-block codes, for people.
_KINDS = {
    "CF": "Cache file",
    "IM": "Image",
    "LA": "Light",
    "LI": "Library",
    "MC": "Movie clip",
    "ME": "Mesh",
    "OB": "Object",
    "SC": "Scene",
    "SO": "Sound",
    "VF": "Font",
    "VO": "Volume",
}


class ReadingTracer:
    """Traces one .blend file. See ``renderfarm.packing.tracing.Tracer``."""

    def __init__(self, blend: Path, scratch: Path) -> None:
        self.blend = blend
        self._scratch = scratch

    def usages(self) -> list[Usage]:
        # An empty path is a data-block without a file, which the tracer takes for the folder of the .blend.
        return [_usage(found) for found in _trace.deps(self.blend) if found.asset_path]

    def rewrite(self, project: Path) -> dict[Path, Path]:
        packer = _InPlace(self.blend, project, self._scratch)
        packer.strategise()
        packer.execute()
        return {path: action.read_from for path, action in packer._actions.items() if action.read_from is not None}


class _InPlace(_pack.Packer):  # type: ignore[misc]
    """Rewrites absolute paths and leaves every file where it is, relative to all the others."""

    def __init__(self, blend: Path, project: Path, scratch: Path) -> None:
        super().__init__(blend, project, str(project))
        self._rewrite_in = scratch

    def _find_new_paths(self) -> None:
        for path in self._new_location_paths:
            self._actions[path].new_path = path

    def _start_file_transferrer(self) -> None:
        """Nothing is transferred."""

    def _perform_file_transfer(self) -> None:
        """Nothing is transferred."""


def _usage(found: Any) -> Usage:
    written = bytes(found.asset_path).decode(errors="surrogateescape")
    return Usage(
        written=written, used_by=_label(found.block_name), files=expand(found.abspath, is_sequence=found.is_sequence)
    )


def _label(block_name: bytes) -> str:
    """Return ``IMwood`` as ``Image "wood"``."""
    name = block_name.decode(errors="replace")
    kind = _KINDS.get(name[:2])
    return f'{kind} "{name[2:]}"' if kind else name
