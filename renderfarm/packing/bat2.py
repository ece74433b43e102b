"""blender-asset-tracer 2.x, which asks Blender: for Python 3.13, where ``bpy`` is 5.1 or later."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from renderfarm.packing.tracing import Usage, expand

# By name, because a type checker sees the one line of the tracer that is installed, and this may be the other. Only
# the packing process, which is made for it, ever loads this module and Blender with it.
bpy: Any = import_module("bpy")
_models: Any = import_module("blender_asset_tracer.path_rewriting_models")
_rewriting: Any = import_module("blender_asset_tracer.path_rewriting")
_usage: Any = import_module("blender_asset_tracer.file_usage")


class BlenderTracer:
    """Traces one .blend file. See ``renderfarm.packing.tracing.Tracer``."""

    def __init__(self, blend: Path, scratch: Path) -> None:
        self.blend = blend
        self._scratch = scratch
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.context.preferences.filepaths.use_scripts_auto_execute = False
        self._open()

    def _open(self) -> None:
        bpy.ops.wm.open_mainfile(filepath=str(self.blend), load_ui=False, use_scripts=False)

    def usages(self) -> list[Usage]:
        usages: list[Usage] = []

        def visit(owner: Any, written: str, _: Any) -> None:
            if written and _counts(owner):
                path = _usage.path_absolute(written, library=owner.library)
                files = expand(path, is_sequence=path.is_dir() or _is_sequence(owner))
                usages.append(Usage(written=written, used_by=_label(owner), files=files))

        with _usage.cache_autoclear():
            bpy.data.file_path_foreach(visit)
        return usages

    def rewrite(self, project: Path) -> dict[Path, Path]:
        needed = _usage.dependencies_of_current_blendfile(project)
        absolute = [
            path
            for path, info in needed.file_infoes.items()
            if (info.needs_path_rewriting or info.uses_absolute_library_paths) and path.exists()
        ]
        copies = {path: self._scratch / f"{number}.blend" for number, path in enumerate(absolute)}
        for path, copy in copies.items():
            request = _models.RewriteRequest(
                blendfile=path,
                relpath_in_root=path.relative_to(project),
                rewrite_rules={},
                save_to=copy,
                pack_source_root=project,
            )
            _rewriting.rewrite_file(request)
        return copies


def _counts(owner: Any) -> bool:
    """Leave out what no picture depends on: libraries held in the file, and the origin of text blocks."""
    if owner.id_type == "LIBRARY":
        return bool(_usage.library_is_packable_dependency(owner))
    return bool(owner.id_type != "TEXT")


def _is_sequence(owner: Any) -> bool:
    """Tell whether a data-block's one path stands for a numbered sequence."""
    return getattr(owner, "source", None) == "SEQUENCE" or bool(getattr(owner, "is_sequence", False))


def _label(owner: Any) -> str:
    return f'{owner.bl_rna.name} "{owner.name}"'
