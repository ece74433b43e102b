"""A farm on a node with a GPU or more, each of them one worker's own, and the scenes that it renders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.farm_process import FarmProcess
from tests.integration.scenes import make_scenes

#: A picture with noise, reflections and soft shadows, enough of it for a GPU to have something to do.
_PICTURE = """
import random
chance = random.Random(1)
for number in range(24):
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.5, location=[chance.uniform(-3, 3) for _ in range(3)])
    skin = bpy.data.materials.new(f"skin {number}")
    skin.use_nodes = True
    inputs = skin.node_tree.nodes["Principled BSDF"].inputs
    inputs["Base Color"].default_value = (chance.random(), chance.random(), chance.random(), 1)
    inputs["Metallic"].default_value, inputs["Roughness"].default_value = number % 2, 0.1 + 0.03 * number
    bpy.context.object.data.materials.append(skin)
scene.render.resolution_x, scene.render.resolution_y, scene.cycles.samples = 480, 270, 64
scene.render.image_settings.file_format, scene.render.image_settings.color_depth = "OPEN_EXR", "32"
"""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenes by name."""
    edits = {
        "picture": _PICTURE,
        "adaptive": _PICTURE + "scene.cycles.use_adaptive_sampling, scene.cycles.adaptive_threshold = True, 0.02",
        "denoised": _PICTURE + "scene.cycles.use_denoising = True",
        "animation": _PICTURE + "scene.frame_end = 16; scene.cycles.samples = 16",
    }
    folder = tmp_path_factory.mktemp("scenes")
    paths = {name: folder / f"{name}.blend" for name in edits}
    make_scenes({paths[name]: edit for name, edit in edits.items()})
    return paths


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    running = FarmProcess(tmp_path_factory.mktemp("farm"), workers="2")
    yield running
    running.stop()
