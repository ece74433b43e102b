"""Makes tiny .blend files for tests, by running bpy in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

#: A camera, a light and a cube that turns 30 degrees a frame; frames 1 to 3 at 32 x 18, 2 samples, no denoising.
_MAKE = """
import json, math, os, sys, traceback
import bpy

def make_movie(scene):
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):  # since Blender 5.0
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"

def make(path, edit):
    bpy.ops.wm.read_factory_settings()
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 2
    scene.cycles.use_denoising = False
    scene.cycles.use_adaptive_sampling = False
    scene.render.resolution_x, scene.render.resolution_y = 32, 18
    scene.frame_start, scene.frame_end = 1, 3
    scene.render.filepath = "//render/shot_####"
    cube = bpy.data.objects["Cube"]
    for frame in (1, 13):
        cube.rotation_euler[2] = math.radians(30 * frame)
        cube.keyframe_insert("rotation_euler", frame=frame)
    exec(edit, {"bpy": bpy, "scene": scene, "cube": cube, "path": path, "make_movie": make_movie})
    # relative_remap would rewrite the paths that a test sets on purpose
    bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=False, compress=True)

status = 0
try:
    for path, edit in json.load(sys.stdin).items():
        make(path, edit)
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


def make_scenes(edits: Mapping[Path, str]) -> None:
    """Make .blend files, each with its own change to the plain scene.

    Args:
        edits: for each file, Python statements that see ``bpy``, ``scene``, ``cube``, the file's ``path``, and
            ``make_movie(scene)``, which lets a scene write a movie.
    """
    for path in edits:
        path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _MAKE],
        input=json.dumps({str(path): edit for path, edit in edits.items()}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"making scenes failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def make_scene(path: Path, edit: str = "") -> Path:
    """Make one .blend file; see ``make_scenes``."""
    make_scenes({path: edit})
    return path
