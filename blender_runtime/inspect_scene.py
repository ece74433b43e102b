"""What a .blend says of itself: a dict with exactly the fields of ``renderfarm.domain.facts.SceneFacts``.

Works on the file that is open, and changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy

from blender_runtime.missing_files import missing_files
from blender_runtime.obstacles import splitting_facts
from blender_runtime.process import peak_memory_bytes


def inspect_open_file() -> dict[str, Any]:
    """Return the facts of the open file."""
    return {
        "blender_version": blender_version(),
        "file_version": ".".join(str(part) for part in bpy.data.version[:2]),
        "active_scene": bpy.context.scene.name,
        "scenes": [_scene(scene) for scene in bpy.data.scenes],
        "missing_files": missing_files(),
        "libraries": [library.filepath for library in bpy.data.libraries],
        "memory_bytes": peak_memory_bytes(),
        "has_scripts": any(_needs_scripts()),
    }


def blender_version() -> str:
    """Return this Blender's version, for example ``4.5.15``."""
    return ".".join(str(part) for part in bpy.app.version)


def _scene(scene: bpy.types.Scene) -> dict[str, Any]:
    render = scene.render
    return {
        "name": scene.name,
        "engine": render.engine,
        "frame_start": scene.frame_start,
        "frame_end": scene.frame_end,
        "frame_step": scene.frame_step,
        "frame_current": scene.frame_current,
        "fps": render.fps / render.fps_base,
        "resolution_x_px": render.resolution_x,
        "resolution_y_px": render.resolution_y,
        "percent": render.resolution_percentage,
        "cameras": sorted(item.name for item in scene.objects if item.type == "CAMERA"),
        "camera": scene.camera.name if scene.camera else None,
        "view_layers": [layer.name for layer in scene.view_layers],
        "file_format": render.image_settings.file_format,
        "is_movie": render.is_movie_format,
        "output_path": render.filepath,
        "samples": _samples(scene),
        **splitting_facts(scene),
        "fps_base": render.fps_base,
        "view_settings": _view_settings(scene),
    }


def _samples(scene: bpy.types.Scene) -> int | None:
    if scene.render.engine == "CYCLES":
        return int(scene.cycles.samples)
    if scene.render.engine.startswith("BLENDER_EEVEE"):
        return int(scene.eevee.taa_render_samples)
    return None


def _view_settings(scene: bpy.types.Scene) -> dict[str, Any]:
    """Return what display pictures are written through. EXR files hold light as it is, seen as the scene is."""
    image = scene.render.image_settings
    is_own = image.color_management == "OVERRIDE" and not image.file_format.startswith("OPEN_EXR")
    owner = image if is_own else scene
    view = owner.view_settings
    return {
        "display": owner.display_settings.display_device,
        "view": view.view_transform,
        "look": view.look,
        "exposure": view.exposure,
        "gamma": view.gamma,
        # White balance came with Blender 4.3.
        "is_whole": not (view.use_curve_mapping or getattr(view, "use_white_balance", False)),
    }


def _needs_scripts() -> Iterator[bool]:
    """Tell of each text and driver whether it would run Python by itself."""
    yield from (text.use_module for text in bpy.data.texts)
    for owner in _animated():
        for curve in owner.animation_data.drivers:
            # Simple expressions are evaluated by Blender itself, without Python.
            yield curve.driver.type == "SCRIPTED" and not curve.driver.is_simple_expression


def _animated() -> Iterator[Any]:
    """Every data-block with animation data, embedded node trees and scene collections included."""
    for collection in bpy.data.bl_rna.properties:
        if collection.type != "COLLECTION":
            continue
        for block in getattr(bpy.data, collection.identifier):
            for owner in (block, getattr(block, "node_tree", None)):
                if getattr(owner, "animation_data", None):
                    yield owner
