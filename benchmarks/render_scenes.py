"""Make the scenes that ``render.py`` renders: ``python render_scenes.py FOLDER '{"sync": {"frames": 40, …}, …}'``.

By Blender's Python module, each as ``FOLDER/NAME/NAME.blend``, with its textures beside it. Every scene is made from
seeds alone, so two runs make the same ones. Run by ``render.py``, never imported.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

# isort: split
import numpy as np

_CAMERA_STEP = math.radians(1.5)


# --- building blocks -----------------------------------------------------------------------------------------


def start(size_px: tuple[int, int], order: dict[str, Any]) -> bpy.types.Scene:
    """Return an empty scene for Cycles on the CPU that writes 32-bit EXR, without adaptive sampling or denoising."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = order["samples"]
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = size_px
    scene.render.threads_mode, scene.render.threads = "FIXED", order["threads"]
    scene.render.filepath = "//render/####"
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.image_settings.color_depth = "32"
    scene.frame_start, scene.frame_end = 1, order["frames"]
    scene.world = bpy.data.worlds.new("World")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.35, 0.45, 0.6, 1.0)
    return scene


def skin(name: str, color: tuple[float, float, float], roughness: float, metallic: float = 0.0) -> Any:
    """Return a new material."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    inputs = made.node_tree.nodes["Principled BSDF"].inputs
    inputs["Base Color"].default_value = (*color, 1.0)
    inputs["Roughness"].default_value = roughness
    inputs["Metallic"].default_value = metallic
    return made


def dress(thing: Any, material: Any) -> Any:
    """Give an object its own material, and return it."""
    thing.data.materials.clear()
    thing.data.materials.append(material)
    return thing


def added(operator: Callable[..., Any], **arguments: Any) -> Any:
    """Return the object that an operator of ``bpy.ops.mesh`` adds."""
    operator(**arguments)
    return bpy.context.object


def floor(size: float = 40.0) -> Any:
    """Add the ground."""
    return dress(added(bpy.ops.mesh.primitive_plane_add, size=size), skin("Floor", (0.4, 0.38, 0.35), 0.8))


def lamp(at: tuple[float, float, float], watts: float) -> Any:
    """Add an area lamp that looks down."""
    bpy.ops.object.light_add(type="AREA", location=at)
    bpy.context.object.data.energy = watts
    bpy.context.object.data.size = 3.0
    return bpy.context.object


def camera(scene: bpy.types.Scene, distance: float, height: float, look_at_height: float = 0.8) -> None:
    """Add a camera that goes round the middle by 1.5 degrees a frame."""
    target = bpy.data.objects.new("Target", None)
    target.location.z = look_at_height
    boom = bpy.data.objects.new("Boom", None)
    eye = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    for thing in (target, boom, eye):
        scene.collection.objects.link(thing)
    eye.parent = boom
    eye.location = (0.0, -distance, height)
    track = eye.constraints.new("TRACK_TO")
    track.target = target
    scene.camera = eye
    move(boom, scene, "rotation_euler", 2, _CAMERA_STEP)


def move(thing: Any, scene: bpy.types.Scene, path: str, index: int, step: float) -> None:
    """Let a value of an object grow by ``step`` a frame."""
    value = getattr(thing, path)[index]
    for frame in (scene.frame_start, scene.frame_end + 1):
        getattr(thing, path)[index] = value + step * (frame - scene.frame_start)
        thing.keyframe_insert(path, index=index, frame=frame)
    for curve in thing.animation_data.action.fcurves:
        for key in curve.keyframe_points:
            key.interpolation = "LINEAR"


# --- the scenes ----------------------------------------------------------------------------------------------


def make_sync(order: dict[str, Any], _folder: Path) -> None:
    """Many subdivided objects and few samples: Blender spends the frame on handing the geometry to Cycles.

    The camera goes round them. Where the order says ``moving``, a small cube turns as well: for Cycles, one moving
    object makes the tree that it finds all triangles by (its BVH) a new one each frame.
    """
    scene = start((192, 108), order)
    scene.cycles.max_bounces = 2
    chance = random.Random(1)
    floor()
    side = math.ceil(math.sqrt(order["objects"]))
    for number in range(order["objects"]):
        column, row = number % side, number // side
        at = (1.6 * (column - (side - 1) / 2), 1.6 * (row - (side - 1) / 2), 0.75)
        monkey = added(bpy.ops.mesh.primitive_monkey_add, size=1.2, location=at)
        monkey.rotation_euler = (0.0, 0.0, chance.uniform(0, math.tau))
        color = (chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.9))
        dress(monkey, skin(monkey.name, color, 0.4))
        rounding = monkey.modifiers.new("Subdivision", "SUBSURF")
        rounding.levels = rounding.render_levels = order["levels"]
    cube = dress(added(bpy.ops.mesh.primitive_cube_add, size=0.6, location=(0, 0, 2.0)), skin("Cube", (1, 1, 1), 0.2))
    if order["moving"]:
        move(cube, scene, "rotation_euler", 2, 0.1)
    lamp((-3.0, -3.0, 7.0), 900.0)
    camera(scene, 9.0, 5.0)


def make_sampling(order: dict[str, Any], _folder: Path) -> None:
    """Light geometry and many samples: Cycles traces rays nearly all of the time."""
    scene = start((order["width_px"], order["width_px"] * 9 // 16), order)
    _still_life()
    camera(scene, 8.0, 3.2)


def make_short(order: dict[str, Any], _folder: Path) -> None:
    """Frames of well under half a second, written as 8-bit PNG: what is around the rendering counts."""
    scene = start((160, 90), order)
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_depth = "8"
    _still_life()
    camera(scene, 8.0, 3.2)


def make_still(order: dict[str, Any], folder: Path) -> None:
    """One picture of ``make_sampling``'s kind; ``adaptive`` as new files have it: adaptive sampling and denoising."""
    make_sampling(order, folder)
    cycles = bpy.context.scene.cycles
    cycles.use_adaptive_sampling = cycles.use_denoising = order["adaptive"]


def make_textures(order: dict[str, Any], folder: Path) -> None:
    """Many large image textures, 8-bit PNG and 32-bit EXR, each on a board of its own, and few samples."""
    scene = start((480, 270), order)
    floor()
    count = order["textures"]
    for number in range(count):
        suffix, kind = ("exr", "OPEN_EXR") if number % 6 == 5 else ("png", "PNG")
        path = folder / "textures" / f"{number:02d}.{suffix}"
        save_texture(path, kind, order["texture_px"] // (1 if kind == "PNG" else 2), number)
        angle = math.tau * number / count
        board = added(
            bpy.ops.mesh.primitive_plane_add, size=1.3, location=(4 * math.cos(angle), 4 * math.sin(angle), 0.8)
        )
        board.rotation_euler = (math.pi / 2, 0.0, angle + math.pi / 2)
        dress(board, textured(path, number))
    lamp((0.0, 0.0, 6.0), 900.0)
    camera(scene, 8.5, 4.0)


def _still_life() -> None:
    floor()
    chance = random.Random(2)
    for number in range(9):
        at = (1.5 * (number % 3 - 1), 1.5 * (number // 3 - 1), 0.6)
        color = (chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.9))
        ball = added(bpy.ops.mesh.primitive_uv_sphere_add, radius=0.6, location=at)
        bpy.ops.object.shade_smooth()
        dress(ball, skin(f"Ball {number}", color, 0.05 + 0.1 * number, float(number % 2)))
    lamp((-3.0, -3.0, 6.0), 700.0)
    lamp((4.0, -1.0, 4.0), 300.0)


def save_texture(path: Path, kind: str, size_px: int, seed: int) -> None:
    """Write a square picture of waves under a little noise, so that it packs about as photographs do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    across = np.linspace(0.0, 1.0, size_px, dtype=np.float32)
    u, v = np.meshgrid(across, across)
    pixels = np.ones((size_px, size_px, 4), dtype=np.float32)
    for channel in range(3):
        a, b, c = chance.uniform(5.0, 60.0, 3)
        pixels[..., channel] = 0.5 + 0.4 * np.sin(a * u + b * v + c)
    pixels[..., :3] += chance.normal(0.0, 0.02, (size_px, size_px, 1)).astype(np.float32)
    image = bpy.data.images.new(path.name, size_px, size_px, float_buffer=kind == "OPEN_EXR")
    image.pixels.foreach_set(pixels.clip(0.0, 1.0).ravel())
    image.file_format = kind
    image.filepath_raw = str(path)
    image.save()
    bpy.data.images.remove(image)


def textured(path: Path, number: int) -> Any:
    """Return a material that shows the picture."""
    made = skin(f"Board {number}", (1, 1, 1), 0.6)
    nodes = made.node_tree.nodes
    picture = nodes.new("ShaderNodeTexImage")
    picture.image = bpy.data.images.load(str(path))
    made.node_tree.links.new(picture.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    return made


# --- making them ---------------------------------------------------------------------------------------------


_MAKERS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "sync": make_sync,
    "sampling": make_sampling,
    "short": make_short,
    "still": make_still,
    "textures": make_textures,
}


def main() -> None:
    """Make every scene of the order; its ``maker`` says how."""
    root, orders = Path(sys.argv[1]).absolute(), json.loads(sys.argv[2])
    for name, order in orders.items():
        folder = root / name
        folder.mkdir(parents=True)
        _MAKERS[order["maker"]](order, folder)
        bpy.context.preferences.filepaths.save_version = 0
        bpy.ops.wm.save_as_mainfile(filepath=str(folder / f"{name}.blend"), compress=True, relative_remap=True)
        bpy.ops.file.make_paths_relative()
        bpy.ops.wm.save_mainfile(compress=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Blender's module may hang when the interpreter takes it down
