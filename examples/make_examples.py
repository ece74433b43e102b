"""Make the two example scenes, by Blender's Python module: ``python examples/make_examples.py [FOLDER]``.

A farm for a render farm: ``animation.blend`` is 24 frames of a windmill turning over fields in which the crop
springs up row by row; ``still.blend`` looks along a field of ripe Suzannes in the evening sun.
"""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy  # first: it brings the others

# isort: split
import bmesh
from mathutils import Vector

Point = tuple[float, float, float]

FRAMES = 24
GREEN, DARK_GREEN, SOIL, EARTH = (0.16, 0.36, 0.07), (0.05, 0.20, 0.06), (0.10, 0.05, 0.025), (0.23, 0.12, 0.06)
RED, WHITE, WOOD, GREY = (0.55, 0.04, 0.03), (0.85, 0.80, 0.72), (0.25, 0.12, 0.05), (0.16, 0.17, 0.20)
CANDY = ((0.95, 0.28, 0.05), (0.90, 0.08, 0.18), (0.95, 0.62, 0.06), (0.08, 0.45, 0.75), (0.45, 0.12, 0.65))


# --- building blocks -----------------------------------------------------------------------------------------


def material(name: str, color: Sequence[float], roughness: float = 0.7, mottle: float = 0.0) -> Any:
    """Return the material of that name; ``mottle`` makes its brightness vary from place to place."""
    if name in bpy.data.materials:
        return bpy.data.materials[name]
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    shader = nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*color, 1.0)
    shader.inputs["Roughness"].default_value = roughness
    if mottle:
        noise, ramp = nodes.new("ShaderNodeTexNoise"), nodes.new("ShaderNodeValToRGB")
        noise.inputs["Scale"].default_value = 2.5
        noise.inputs["Detail"].default_value = 8.0
        ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.35, 0.65
        for element, factor in zip(ramp.color_ramp.elements, (1.0 - mottle, 1.0 + mottle), strict=True):
            element.color = (*(channel * factor for channel in color), 1.0)
        links.new(noise.outputs["Fac"], ramp.inputs["Fac"])
        links.new(ramp.outputs["Color"], shader.inputs["Base Color"])
    return made


def add(name: str, mesh: Any, at: Point, skin: Any = None, bevel: float = 0.0) -> Any:
    """Put an object with ``mesh`` into the scene."""
    thing = bpy.data.objects.new(name, mesh)
    thing.location = at
    bpy.context.scene.collection.objects.link(thing)
    if skin is not None and not mesh.materials:
        mesh.materials.append(skin)
    if bevel:
        rounding = thing.modifiers.new("Bevel", "BEVEL")
        rounding.width, rounding.segments = bevel, 3
    return thing


def mesh_of(name: str, build: Any, smooth: bool = False) -> Any:
    """Return a new mesh, filled by ``build(bmesh)``."""
    mesh, shape = bpy.data.meshes.new(name), bmesh.new()
    build(shape)
    shape.to_mesh(mesh)
    shape.free()
    for polygon in mesh.polygons:
        polygon.use_smooth = smooth
    return mesh


def box(name: str, size: Point, at: Point, skin: Any, bevel: float = 0.03) -> Any:
    """Add a box whose floor is at ``at``."""

    def build(shape: Any) -> None:
        bmesh.ops.create_cube(shape, size=1.0)
        bmesh.ops.scale(shape, vec=size, verts=shape.verts)
        bmesh.ops.translate(shape, vec=(0, 0, size[2] / 2), verts=shape.verts)

    return add(name, mesh_of(name, build), at, skin, bevel)


def cone(name: str, radii: tuple[float, float], height: float, at: Point, skin: Any, sides: int = 24) -> Any:
    """Add a cone or, where both radii are given, a tapered tower whose floor is at ``at``."""

    def build(shape: Any) -> None:
        bmesh.ops.create_cone(shape, cap_ends=True, segments=sides, radius1=radii[0], radius2=radii[1], depth=height)
        bmesh.ops.translate(shape, vec=(0, 0, height / 2), verts=shape.verts)

    return add(name, mesh_of(name, build), at, skin)


def prism(name: str, outline: Sequence[tuple[float, float]], length: float, at: Point, skin: Any) -> Any:
    """Add a solid with ``outline`` (x, z) along y, centred on ``at``."""

    def build(shape: Any) -> None:
        face = shape.faces.new([shape.verts.new((x, -length / 2, z)) for x, z in outline])
        grown = bmesh.ops.extrude_face_region(shape, geom=[face])["geom"]
        corners = [corner for corner in grown if isinstance(corner, bmesh.types.BMVert)]
        bmesh.ops.translate(shape, vec=(0, length, 0), verts=corners)
        bmesh.ops.recalc_face_normals(shape, faces=shape.faces)

    return add(name, mesh_of(name, build), at, skin, bevel=0.03)


def ball_mesh(name: str, detail: int = 3, smooth: bool = True) -> Any:
    """Return a ball of radius 1."""
    return mesh_of(name, lambda shape: bmesh.ops.create_icosphere(shape, subdivisions=detail, radius=1.0), smooth)


def suzanne_mesh(name: str, color: Sequence[float]) -> Any:
    """Return Blender's monkey, about 1 high, looking towards -y."""
    mesh = mesh_of(name, bmesh.ops.create_monkey, smooth=True)
    mesh.materials.append(material(name, color, roughness=0.28))
    return mesh


# --- the farm ------------------------------------------------------------------------------------------------


def barn(x: float, y: float) -> None:
    """A red barn with white trim and a gambrel roof."""
    red, white, grey = material("Red boards", RED), material("White", WHITE), material("Roof", GREY, 0.5)
    gable = [(-1.0, 0.0), (1.0, 0.0), (1.0, 1.1), (0.68, 1.7), (0.0, 2.05), (-0.68, 1.7), (-1.0, 1.1)]
    prism("Barn", gable, 2.4, (x, y, 0), red)
    for side in (-1, 1):
        lower = [(1.14, 0.98), (1.2, 1.02), (0.72, 1.82), (0.66, 1.72)]
        upper = [(0.72, 1.68), (0.74, 1.82), (0.0, 2.18), (0.0, 2.06)]
        for number, slope in enumerate((lower, upper)):
            prism(f"Roof {side} {number}", [(side * px, pz) for px, pz in slope], 2.7, (x, y, 0), grey)
    front = y - 1.22
    box("Door", (0.9, 0.06, 0.95), (x, front, 0), red)
    for px in (-0.45, 0.0, 0.45):
        box("Door post", (0.07, 0.1, 0.98), (x + px, front, 0), white, 0.01)
    box("Lintel", (0.97, 0.1, 0.08), (x, front, 0.93), white, 0.01)
    for lean in (-1, 1):
        for px in (-0.225, 0.225):
            brace = box("Brace", (0.05, 0.09, 0.98), (x + px - lean * 0.19, front, 0.04), white, 0.01)
            brace.rotation_euler.y = lean * 0.4
    box("Loft", (0.42, 0.08, 0.42), (x, front, 1.28), white, 0.01)
    box("Loft window", (0.3, 0.1, 0.3), (x, front, 1.34), material("Glass", (0.02, 0.03, 0.05), 0.15), 0.01)


def windmill(x: float, y: float, turn: float) -> Any:
    """A windmill; its sails look towards -y. Returns the hub, which turns them."""
    white, wood, grey = material("White", WHITE), material("Wood", WOOD), material("Roof", GREY, 0.5)
    cone("Tower", (0.62, 0.4), 2.3, (x, y, 0), white, sides=10)
    cone("Cap", (0.52, 0.02), 0.62, (x, y, 2.28), material("Red boards", RED), sides=10)
    box("Mill door", (0.3, 0.1, 0.55), (x, y - 0.58, 0), wood, 0.02)
    box("Mill window", (0.2, 0.1, 0.26), (x, y - 0.48, 1.2), grey, 0.02)
    hub = add("Hub", ball_mesh("Hub", 2), (x, y - 0.62, 2.2), wood)
    hub.scale = (0.11, 0.16, 0.11)
    for number in range(4):
        arm = bpy.data.objects.new(f"Sail {number}", None)
        bpy.context.scene.collection.objects.link(arm)
        arm.parent, arm.rotation_euler.y = hub, number * math.pi / 2
        arm.scale = [1 / scale for scale in hub.scale]
        box("Spar", (0.05, 0.05, 1.25), (0, 0, 0), wood, 0.01).parent = arm
        cloth = box("Cloth", (0.3, 0.02, 0.95), (0.14, 0, 0.26), white, 0.005)
        cloth.parent, cloth.rotation_euler.z = arm, 0.25
    hub.rotation_euler.y = turn
    return hub


def tree(x: float, y: float, height: float, chance: random.Random) -> None:
    """A fir or a round tree."""
    cone("Trunk", (0.09, 0.07), 0.4, (x, y, 0), material("Wood", WOOD), sides=8)
    leaves = material("Leaves", DARK_GREEN, 0.8, mottle=0.3)
    if chance.random() < 0.6:
        for level in range(3):
            radius = 0.5 * height * (1 - level * 0.25)
            fir = cone("Fir", (radius, 0.02), 0.75 * height, (x, y, 0.3 + level * 0.42 * height), leaves, sides=9)
            fir.rotation_euler.z = chance.uniform(0, math.tau)
        return
    crown = add(
        "Crown", ball_mesh("Crown", 2, smooth=False), (x, y, 0.35 + 0.5 * height), material("Young leaves", GREEN)
    )
    crown.scale = (0.48 * height, 0.48 * height, 0.58 * height)


def fence(start: tuple[float, float], end: tuple[float, float]) -> None:
    """Posts and two rails from one point to another."""
    wood = material("White", WHITE)
    a, b = Vector((*start, 0)), Vector((*end, 0))
    length = (b - a).length
    posts = max(2, round(length / 0.55) + 1)
    for number in range(posts):
        at = a.lerp(b, number / (posts - 1))
        box("Post", (0.07, 0.07, 0.42), tuple(at), wood, 0.015)
    for height in (0.16, 0.31):
        rail = box("Rail", (length, 0.035, 0.06), (*((a + b) / 2).xy, height), wood, 0.01)
        rail.rotation_euler.z = math.atan2(b.y - a.y, b.x - a.x)


def cloud(at: Point, size: float, chance: random.Random) -> Any:
    """A heap of balls; returns the first, which the others follow."""
    skin = material("Cloud", (0.9, 0.9, 0.92), 1.0)
    heap = add("Cloud", ball_mesh("Cloud", 3), at, skin)
    heap.scale = (size * 0.5,) * 3
    for number in range(4):
        puff = add(
            "Puff", heap.data, ((number - 1.5) * 0.8, chance.uniform(-0.3, 0.3), chance.uniform(-0.25, 0.1)), skin
        )
        puff.scale = (chance.uniform(0.55, 0.8),) * 3
        puff.parent = heap
    return heap


def ridge(x: float, y: float, length: float) -> None:
    """A ridge of soil along x."""
    skin = material("Soil", SOIL, 0.95, mottle=0.4)
    heap = add("Ridge", ball_mesh("Ridge", 4), (x, y, 0), skin)
    heap.scale = (length / 2 * 1.06, 0.24, 0.14)


# --- light, camera, output -----------------------------------------------------------------------------------


def sky(top: Sequence[float], horizon: Sequence[float], strength: float) -> None:
    """A sky that goes from ``horizon`` up to ``top``."""
    world = bpy.data.worlds.new("Sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    where, split, ramp = (nodes.new(f"ShaderNode{kind}") for kind in ("TexCoord", "SeparateXYZ", "ValToRGB"))
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.02, 0.32
    ramp.color_ramp.elements[0].color, ramp.color_ramp.elements[1].color = (*horizon, 1), (*top, 1)
    links.new(where.outputs["Generated"], split.inputs["Vector"])
    links.new(split.outputs["Z"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], nodes["Background"].inputs["Color"])
    nodes["Background"].inputs["Strength"].default_value = strength


def sun(direction: Point, color: Sequence[float], strength: float, softness: float) -> None:
    """A sun that shines along ``direction``."""
    light = bpy.data.lights.new("Sun", "SUN")
    light.color, light.energy, light.angle = color, strength, softness
    thing = bpy.data.objects.new("Sun", light)
    thing.rotation_euler = Vector(direction).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(thing)


def camera(
    at: Point, look_at: Point, lens_mm: float, f_stop: float | None = None, focus_at: Point | None = None
) -> Any:
    """The scene's camera."""
    data = bpy.data.cameras.new("Camera")
    data.lens = lens_mm
    thing = bpy.data.objects.new("Camera", data)
    thing.location = at
    thing.rotation_euler = (Vector(look_at) - Vector(at)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(thing)
    bpy.context.scene.camera = thing
    if f_stop is not None:
        data.dof.use_dof, data.dof.aperture_fstop = True, f_stop
        data.dof.focus_distance = (Vector(focus_at or look_at) - Vector(at)).length
    return thing


def output(name: str, width_px: int, height_px: int, samples: int) -> None:
    """Cycles on the CPU, few samples and the denoiser."""
    scene = bpy.context.scene
    scene.name = name
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = width_px, height_px, 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.render.filepath = "//render/"
    scene.cycles.samples, scene.cycles.use_adaptive_sampling = samples, True
    scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
    scene.cycles.max_bounces, scene.cycles.caustics_reflective, scene.cycles.caustics_refractive = 6, False, False
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", "AgX - Medium High Contrast"


def key(thing: Any, path: str, values: Sequence[tuple[float, Any]], index: int = -1, even: bool = False) -> None:
    """Animate a property: (frame, value) pairs; ``even`` for a constant pace."""
    for frame, value in values:
        if index < 0:
            setattr(thing, path, value)
        else:
            getattr(thing, path)[index] = value
        thing.keyframe_insert(path, index=index, frame=frame)
    if even:
        for curve in thing.animation_data.action.fcurves:
            for point in curve.keyframe_points:
                point.interpolation = "LINEAR"


# --- the two scenes ------------------------------------------------------------------------------------------


def make_animation() -> None:
    """An island seen from above: the windmill turns, clouds drift, the crop springs up."""
    chance = random.Random(4)
    output("Animation", 320, 180, samples=20)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.render.fps = 1, FRAMES, 12

    box("Floor", (200, 200, 1), (0, 0, -3.0), material("Floor", (0.50, 0.78, 0.80), 0.9), bevel=0)
    box("Earth", (8.4, 6.4, 0.9), (0, 0, -1.15), material("Earth", EARTH, 0.95, mottle=0.3), bevel=0.3)
    box("Grass", (8.6, 6.6, 0.36), (0, 0, -0.36), material("Grass", GREEN, 0.9, mottle=0.25), bevel=0.14)
    barn(-2.5, 1.5)
    hub = windmill(2.6, 1.9, 0.3)
    # A quarter turn over the frames, so that the last frame leads into the first.
    key(hub, "rotation_euler", [(1, 0.3), (FRAMES + 1, 0.3 + math.pi / 2)], index=1, even=True)
    for x, y in ((-0.7, 2.5), (0.1, 2.2), (0.8, 2.7), (3.7, 0.7), (3.75, -2.6), (-3.8, -0.4)):
        tree(x, y, chance.uniform(0.8, 1.15), chance)
    fence((-4.1, -3.1), (4.1, -3.1))
    fence((-4.1, -3.1), (-4.1, -0.9))
    for number, (at, size) in enumerate((((-0.6, 2.4, 2.9), 0.75), ((2.4, -2.2, 2.6), 0.55))):
        puffs = cloud(at, size, chance)
        drift = 0.5 + 0.2 * number
        key(puffs, "location", [(1, at[0] - drift), (FRAMES + 1, at[0] + drift)], index=0, even=True)

    crop = [ball_mesh(f"Crop {number}", 3) for number in range(4)]
    for mesh, color in zip(crop, CANDY, strict=False):
        mesh.materials.append(material(mesh.name, color, roughness=0.3))
    leaf = material("Young leaves", GREEN)
    for row in range(4):
        y = -2.4 + row * 0.75
        ridge(0.0, y, 6.4)
        for place in range(9):
            x = -2.9 + place * 0.72
            fruit = add("Fruit", crop[row], (x, y, 0.26), None)
            stalk = cone("Stalk", (0.05, 0.012), 0.5, (0, 0, 0.9), leaf, sides=6)
            stalk.parent = fruit
            ripe, start = 0.24 + chance.uniform(-0.02, 0.02), 1 + place * 1.4 + row * 1.1
            steps = ((start, 0.02), (start + 3, ripe * 1.25), (start + 5, ripe * 0.9), (start + 7, ripe))
            key(fruit, "scale", [(frame, (size, size, size)) for frame, size in steps])

    sky((0.45, 0.62, 0.95), (0.95, 0.88, 0.80), 0.45)
    sun((-0.75, 0.45, -0.7), (1.0, 0.82, 0.58), 7.0, math.radians(3))
    camera((9.5, -15.5, 10.2), (0.0, 0.05, 0.5), 63)


def make_still() -> None:
    """Between the rows, close to the ground, in the evening sun."""
    chance = random.Random(11)
    output("Still", 480, 270, samples=64)
    bpy.context.scene.frame_end = 1
    box("Field", (120, 120, 1), (0, 30, -1.0), material("Grass", GREEN, 0.9, mottle=0.3), bevel=0)
    barn(-3.1, 11.0)
    windmill(3.2, 11.5, 0.5)
    for _ in range(26):
        x = chance.choice((-1, 1)) * chance.uniform(2, 16)
        tree(x, chance.uniform(15, 22), chance.uniform(1.0, 1.9), chance)
    fence((-12, 8.6), (12, 8.6))

    heads = [suzanne_mesh(f"Suzanne {number}", color) for number, color in enumerate(CANDY)]
    leaf = material("Young leaves", GREEN)
    blade = ball_mesh("Leaf", 2)
    for row in range(7):
        y = row * 1.15
        ridge(0.0, y, 18)
        for place in range(-7, 8):
            x = place * 1.05 + (row % 2) * 0.5
            head = add("Head", chance.choice(heads), (x, y, 0.42), None)
            head.scale = (chance.uniform(0.34, 0.42),) * 3
            # Sunflowers of a kind: all look towards the light, and none quite the same way.
            head.rotation_euler = (chance.uniform(-0.5, -0.2), chance.uniform(-0.2, 0.2), chance.uniform(-0.5, 0.3))
            if row < 4 and abs(place) < 5:
                smooth = head.modifiers.new("Subdivision", "SUBSURF")
                smooth.levels = smooth.render_levels = 1
            for number in range(4):
                angle = number * math.tau / 4 + chance.uniform(0, 1)
                foil = add("Leaf", blade, (x + 0.3 * math.cos(angle), y + 0.3 * math.sin(angle), 0.2), leaf)
                foil.scale = (0.26, 0.11, 0.03)
                foil.rotation_euler = (0, -0.55, angle)

    sky((0.10, 0.26, 0.80), (1.0, 0.52, 0.24), 0.8)
    sun((0.85, 0.2, -0.36), (1.0, 0.62, 0.30), 8.0, math.radians(2))
    camera((0.35, -3.3, 1.35), (0.1, 6.0, 0.85), 34, f_stop=0.9, focus_at=(0.0, 0.6, 0.5))


def main() -> None:
    """Make both scenes."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, make in (("animation", make_animation), ("still", make_still)):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        make()
        target = folder.absolute() / f"{name}.blend"
        bpy.context.preferences.filepaths.save_version = 0
        bpy.ops.wm.save_as_mainfile(filepath=str(target), compress=True)
        sys.stderr.write(f"{target}: {target.stat().st_size / 1024:.0f} KiB\n")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Blender's module may hang when the interpreter takes it down
