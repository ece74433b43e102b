"""Plain Blender as a process: ``python render_blender.py '{"file": …, "first": 1, "last": 24, …}'``.

What ``blender --background FILE -o OUTPUT -s FIRST -e LAST -a`` does, by Blender's Python module. How many seconds the
rendering took goes to the file ``times``. Run by ``render_processes.py``, never imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import bpy


def main() -> None:
    """Render as the JSON argument says."""
    job = json.loads(sys.argv[1])
    bpy.ops.wm.open_mainfile(filepath=job["file"])
    scene = bpy.context.scene
    scene.render.use_persistent_data = job["keep_data"]
    scene.frame_start, scene.frame_end, scene.frame_step = job["first"], job["last"], 1
    scene.render.filepath = job["output"]
    started = time.perf_counter()
    bpy.ops.render.render(animation=True)
    Path(job["times"]).write_text(json.dumps(time.perf_counter() - started))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Blender's module may hang when the interpreter takes it down
