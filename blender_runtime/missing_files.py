"""External files that the open .blend names and that are not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

_DIGITS = re.compile(r"(\d+)(?=\D*$)")

Named = tuple[str, Any, bool]
"""A path as written, the data-block that names it, and whether any file of its numbered series will do."""


def missing_files() -> list[dict[str, str]]:
    """Return path and user of each missing file, each pair once, with the fields of ``facts.MissingFile``."""
    missing: dict[tuple[str, str], None] = {}
    for path, block, is_series in _named_files():
        if path and not _is_there(path, block, is_series):
            missing[path, _user(block)] = None
    return [{"path": path, "used_by": user} for path, user in missing]


def _named_files() -> Iterator[Named]:
    yield from _libraries()
    yield from _images()
    yield from _plain()
    yield from _strips()
    yield from _modifiers()
    yield from _nodes()


def _libraries() -> Iterator[Named]:
    for library in bpy.data.libraries:
        if not library.packed_file:
            yield library.filepath, library, False


def _images() -> Iterator[Named]:
    for image in bpy.data.images:
        if image.users == 0 or image.packed_file or image.packed_files or image.source in ("GENERATED", "VIEWER"):
            continue
        if image.source == "TILED":
            for tile in image.tiles:
                yield _tile_path(image.filepath, tile.number), image, False
        else:
            yield image.filepath, image, image.source == "SEQUENCE"


def _tile_path(path: str, number: int) -> str:
    """Fill in the place-holders that Blender knows: ``<UDIM>`` is 1001 + u + 10 v, ``<UVTILE>`` counts from 1."""
    column, row = (number - 1001) % 10 + 1, (number - 1001) // 10 + 1
    return path.replace("<UDIM>", str(number)).replace("<UVTILE>", f"u{column}_v{row}")


def _plain() -> Iterator[Named]:
    """Data-blocks that are one file or one series each."""
    for block in (*bpy.data.fonts, *bpy.data.sounds, *bpy.data.volumes):
        if not block.packed_file and block.filepath != "<builtin>":
            yield block.filepath, block, getattr(block, "is_sequence", False)
    for cache in bpy.data.cache_files:
        yield cache.filepath, cache, cache.is_sequence
    for clip in bpy.data.movieclips:
        yield clip.filepath, clip, clip.source == "SEQUENCE"


def _strips() -> Iterator[Named]:
    """Pictures and movies on the video sequencer's tracks."""
    for scene in bpy.data.scenes:
        editor = scene.sequence_editor
        if editor is None:
            continue
        for strip in editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all:
            if strip.type == "MOVIE":
                yield strip.filepath, scene, False
            elif strip.type == "IMAGE":
                for element in strip.elements:
                    yield strip.directory + element.filename, scene, False


def _modifiers() -> Iterator[Named]:
    for item in bpy.data.objects:
        for modifier in item.modifiers:
            if modifier.type == "MESH_CACHE":
                yield modifier.filepath, item, False


def _nodes() -> Iterator[Named]:
    """Light profiles and shader scripts kept outside the file."""
    trees = [*bpy.data.node_groups]
    for blocks in (bpy.data.materials, bpy.data.worlds, bpy.data.lights):
        trees += [block.node_tree for block in blocks if block.node_tree]
    for tree in trees:
        for node in tree.nodes:
            if node.bl_idname in ("ShaderNodeTexIES", "ShaderNodeScript") and node.mode == "EXTERNAL":
                yield node.filepath, tree, False


def _is_there(path: str, block: Any, is_series: bool) -> bool:
    # Paths in linked data are relative to their library. Windows' separators come with files from there.
    absolute = Path(bpy.path.abspath(path, library=block.library).replace("\\", os.sep))
    return absolute.exists() or (is_series and _any_of_series(absolute))


def _any_of_series(path: Path) -> bool:
    """Tell whether a file is there whose name differs from ``path``'s in its last number only."""
    number = _DIGITS.search(path.name)
    if number is None or not path.parent.is_dir():
        return False
    series = re.compile(re.escape(path.name[: number.start()]) + r"\d+" + re.escape(path.name[number.end() :]))
    return any(series.fullmatch(other.name) for other in path.parent.iterdir())


def _user(block: Any) -> str:
    return f'{block.bl_rna.name} "{block.name}"'
