"""Rendering with plain Blender, and comparing pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

#: What ``blender -b FILE -o DIR/NAME -F FORMAT -s A -e B -a`` does, written out for the bpy module.
_PLAIN = """
import json, os, sys, traceback
import bpy
status = 0
try:
    for job in json.load(sys.stdin):
        bpy.ops.wm.open_mainfile(filepath=job["scene"], use_scripts=False, load_ui=False)
        scene = bpy.context.scene
        if job["format"] is not None:
            image = scene.render.image_settings
            if hasattr(image, "media_type"):
                image.media_type = "MULTI_LAYER_IMAGE" if job["format"].endswith("MULTILAYER") else "IMAGE"
            image.file_format = job["format"]
        scene.frame_start, scene.frame_end = job["first"], job["last"]
        scene.render.filepath = job["output"]
        bpy.ops.render.render(animation=True)
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


def render_plainly(jobs: list[dict[str, Any]]) -> None:
    """Render with plain Blender: each job has ``scene``, ``format`` (or None), ``first``, ``last``, ``output``."""
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN], input=json.dumps(jobs), capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def read_pixels(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every channel of every part of a picture as linear floats (8-bit files: 0 to 1), by name."""
    picture = oiio.ImageInput.open(str(path))
    assert picture is not None, f"{path}: {oiio.geterror()}"
    channels: dict[str, NDArray[np.float32]] = {}
    part = 0
    while picture.seek_subimage(part, 0):
        spec = picture.spec()
        pixels = picture.read_image(part, 0, 0, spec.nchannels, oiio.FLOAT)
        assert pixels is not None, f"{path}: {picture.geterror()}"
        for index, name in enumerate(spec.channelnames):
            channels[f"{part}.{name}"] = pixels[:, :, index]
        part += 1
    picture.close()
    return channels


def largest_difference(ours: Path, theirs: Path) -> float:
    """Return the largest difference of any channel of any pixel; the channels must be the same ones."""
    left, right = read_pixels(ours), read_pixels(theirs)
    assert left.keys() == right.keys()
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)
