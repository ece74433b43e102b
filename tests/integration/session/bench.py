"""A session to try things on, and what its tests say often."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import OpenImageIO

from actors.blender_session import BlenderSession
from actors.blenders import Blender
from blender_runtime import protocol
from blender_runtime.protocol import FrameDone
from renderfarm.domain.render_settings import Device, PersistentData
from renderfarm.domain.unit_spec import UnitSpec
from renderfarm.services.unit_script import generate_script

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LIMITS: dict[str, Any] = {"open_timeout_s": 60, "frame_timeout_s": 60, "no_progress_timeout_s": 60}

HOSTILE = "'''; import os; os.mkdir('pwned') #\"\n{}"
REPOSITORY = Path(__file__).parents[3]

#: A stand-in for a unit's script that behaves badly in a chosen way, without the cost of a picture.
BAD_SCRIPT = """
import os, signal, time
UNIT = {{}}
def open_scene(path): pass
def apply_settings(unit):
    import bpy
    return bpy.context.scene
def render_frame(scene, frame, output_dir):
    {body}
"""

PLAIN = UnitSpec(
    scene_file="plain.blend",
    scene=None,
    view_layer=None,
    camera=None,
    frames=(1,),
    engine=None,
    samples=None,
    resolution_x_px=None,
    resolution_y_px=None,
    percent=None,
    format=None,
    device=Device.AUTO,
    persistent_data=PersistentData.FILE,
    part=None,
    folder="",
    unit_id="unit",
    task_id="task",
)

SCENES = {
    "plain": "",
    "noisy": "scene.render.resolution_x, scene.render.resolution_y, scene.cycles.samples = 320, 180, 1",
    "tmp": "scene.render.filepath = '/tmp/'",
    "cameras": f"""
second = bpy.data.objects.new({HOSTILE!r}, bpy.data.cameras.new("second"))
scene.collection.objects.link(second)
second.matrix_world = scene.camera.matrix_world
second.location.z += 2
scene.timeline_markers.new("cut", frame=2).camera = scene.camera
""",
    "two_scenes": """
other = bpy.data.scenes.new("Other")
other.collection.objects.link(scene.camera)
other.camera = scene.camera
other.view_layers.new("Second")
make_movie(other)
other.render.fps, other.render.fps_base = 30, 1.001
other.view_settings.view_transform = "Filmic"
other.view_settings.look = "High Contrast"
other.view_settings.exposure, other.view_settings.gamma = 0.5, 1.25
other.view_settings.use_curve_mapping = True
bpy.context.window.scene = other
""",
    "missing": """
image = bpy.data.images.new("wood", 4, 4)
image.source, image.filepath, image.use_fake_user = "FILE", "//textures/wood.png", True
tiles = bpy.data.images.new("tiles", 4, 4, tiled=True)
tiles.source, tiles.filepath, tiles.use_fake_user = "TILED", "//tile.<UDIM>.png", True
series = bpy.data.images.new("series", 4, 4)
series.source, series.filepath, series.use_fake_user = "SEQUENCE", "//frames/s_0001.png", True
packed = bpy.data.images.new("packed", 4, 4)
packed.pack()
text = bpy.data.texts.new("start.py")
text.use_module = True
""",
    "wants_gpu": "scene.cycles.device = 'GPU'",
    "no_camera": "bpy.data.objects.remove(scene.camera)",
    "driver": "cube.driver_add('location', 0).driver.expression = 'frame * 0.1'",
    "heavy": """
rounding = cube.modifiers.new("Subdivision", "SUBSURF")
rounding.levels = rounding.render_levels = 7
scene.cycles.samples = 1
""",
    "python_driver": "cube.driver_add('location', 0).driver.expression = '[frame for _ in range(3)][0]'",
}


class Bench:
    """A session that is started anew when a test has killed it, and short ways to use it."""

    def __init__(self, run: Run[Any], blender: Blender, folder: Path, threads: int | None = None) -> None:
        self._run, self._blender, self._folder, self._threads = run, blender, folder, threads
        self.session = self._start()

    def _start(self) -> BlenderSession:
        session: BlenderSession = self._run(
            BlenderSession.start(
                self._blender,
                folder=self._folder,
                log_path=self._folder.with_suffix(".log"),
                start_timeout_s=60,
                threads=self._threads,
            )
        )
        return session

    def revive(self) -> None:
        if not self.session.alive:
            self._run(self.session.close())
            self.session = self._start()

    def close(self) -> None:
        self._run(self.session.close())

    def inspect(self, scene: Path, log: Path) -> Any:
        return self._run(self.session.inspect(scene, log_path=log, open_timeout_s=60))

    def render(self, spec: UnitSpec, scene: Path, output: Path, log: Path, **options: Any) -> tuple[FrameDone, ...]:
        return self._render(generate_script(spec), spec.frames, scene, output, log, **options)

    def misbehave(self, body: str, folder: Path, **options: Any) -> tuple[FrameDone, ...]:
        """Render frame 1 by a script whose ``render_frame`` does ``body``."""
        return self._render(
            BAD_SCRIPT.format(body=body), (1,), folder / "none.blend", folder, folder / "log", **options
        )

    def _render(
        self, script: str, frames: tuple[int, ...], scene: Path, output: Path, log: Path, **options: Any
    ) -> tuple[FrameDone, ...]:
        orders = {name: options.pop(name) for name in ("fresh", "memory_max_bytes", "saving_min") if name in options}
        request = render_request(script, frames, scene, output, log, **orders)
        done: tuple[FrameDone, ...] = self._run(self.session.render(request, **(LIMITS | options)))
        return done


def render_request(
    script: str, frames: tuple[int, ...], scene: Path, output: Path, log: Path, **orders: Any
) -> protocol.Render:
    return protocol.Render(
        script=script,
        frames=frames,
        scene_path=str(scene),
        output_dir=str(output),
        log_path=str(log),
        **({"saving_min": 0.1} | orders),
    )


def pixels(path: str | Path) -> Any:
    image = OpenImageIO.ImageBuf(str(path))
    assert not image.has_error, image.geterror()
    return image.get_pixels(OpenImageIO.FLOAT)


def same(one: str | Path, other: str | Path) -> bool:
    return bool(np.array_equal(pixels(one), pixels(other)))


def names(done: tuple[FrameDone, ...]) -> list[list[str]]:
    return [[Path(file).name for file in frame.files] for frame in done]


def opened(log: Path) -> int:
    """Count how often Blender says it opened a file."""
    return log.read_text().count("Read blend:")


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    """Wait for a process that is not a child of ours to be gone or a zombie of its new parent."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
