"""One farm with two workers for all tests here, and the scenes that they render."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.farm_process import FarmProcess
from tests.integration.scenes import make_scenes

#: A second or two a frame on one core.
SLOW = (
    "scene.cycles.samples = 150; scene.render.resolution_x, scene.render.resolution_y = 320, 180; scene.frame_end = 6"
)
#: Minutes for a frame.
ENDLESS = """
scene.cycles.samples = 100000
scene.render.resolution_x, scene.render.resolution_y = 640, 360
scene.frame_end = 2
"""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenes by name."""
    folder = tmp_path_factory.mktemp("scenes")
    edits = {
        "quick": "",
        "slow": SLOW,
        "endless": ENDLESS,
        "cameras": """
for name, x in (("Left", -4.0), ("Right", 4.0)):
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    camera.location = (x, -8.0, 3.0)
    camera.rotation_euler = (1.3, 0.0, x / -10.0)
    scene.collection.objects.link(camera)
""",
        "no_camera": 'bpy.data.objects.remove(bpy.data.objects["Camera"])',
        "movie": "make_movie(scene)",
    }
    paths = {name: folder / f"{name}.blend" for name in edits}
    make_scenes({paths[name]: edit for name, edit in edits.items()})
    return paths


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    """A farm with two workers and short leases."""
    running = FarmProcess(tmp_path_factory.mktemp("farm"), workers="2", lease_s="6", heartbeat_s="0.3")
    yield running
    running.stop()
