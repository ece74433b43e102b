"""What ``blender --background FILE --render-anim`` does, timed: ``python plain_blender.py '{"file": …}' RESULT.json``.

One process: load Blender, open the file, render the frames. Run by ``overhead.py``, never imported.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Render as the JSON argument says and write the seconds of each step."""
    job = json.loads(sys.argv[1])
    times = [time.perf_counter()]
    import bpy  # here, because loading Blender is what the first step measures

    times.append(time.perf_counter())
    bpy.ops.wm.open_mainfile(filepath=job["file"])
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.frame_step = job["first"], job["last"], 1
    scene.render.resolution_percentage = job["percent"]
    scene.cycles.samples = job["samples"]
    scene.render.filepath = job["output"]
    times.append(time.perf_counter())
    bpy.ops.render.render(animation=True)
    times.append(time.perf_counter())
    steps_s = [later - earlier for earlier, later in itertools.pairwise(times)]
    Path(sys.argv[2]).write_text(json.dumps(dict(zip(("load_s", "open_s", "render_s"), steps_s, strict=True))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Blender's module may hang when the interpreter takes it down
