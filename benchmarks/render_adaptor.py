"""The OpenJD adaptor for Blender, which keeps one Blender open for all frames of a job.

``pip install deadline-cloud-for-blender``, best in an environment of its own. It starts a program ``blender``; here
that is a script around Blender's Python module, so that it renders with the same Blender as everybody else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.render_processes import Run

PROGRAM = "blender-openjd"
_TIMEOUT_S = 600.0
#: Takes of Blender's own options the one that matters: ``--python SCRIPT``.
_BLENDER = """#!{python}
import runpy, sys
import bpy
script = sys.argv[sys.argv.index("--python") + 1]
sys.argv = [script]
runpy.run_path(script, run_name="__main__")
"""


def find_adaptor(given: Path | None) -> Path | None:
    """Return the adaptor's program: the given one, one beside this Python, one on the PATH, or None."""
    if given is not None:
        if not given.is_file():
            raise SystemExit(f"there is no {given}")
        return given
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which(PROGRAM, path=path)
    return Path(found) if found else None


def render_by_adaptor(program: Path, scene_file: Path, frames: Iterable[int], folder: Path) -> tuple[Run, float]:
    """Render frames as tasks of one OpenJD session, as a worker of such a farm does.

    Returns:
        The run, without the start and the end of the session; and the seconds of these.
    """
    folder.mkdir(parents=True)
    pictures = folder / "pictures"
    pictures.mkdir()
    wanted = list(frames)
    began = time.perf_counter()
    with _session(program, scene_file, pictures, folder) as call:
        started = time.perf_counter()
        for frame in wanted:
            call("run", "--run-data", json.dumps({"frame": frame}))
        seconds = time.perf_counter() - started
    around_s = time.perf_counter() - began - seconds
    written = len(list(pictures.iterdir()))
    if written != len(wanted):
        raise SystemExit(f"the adaptor wrote {written} of {len(wanted)} pictures; see {folder / 'adaptor.log'}")
    return Run(seconds=seconds, frames=len(wanted), pictures=pictures), around_s


@contextmanager
def _session(program: Path, scene_file: Path, pictures: Path, folder: Path) -> Iterator[_Call]:
    blender = folder / "blender"
    blender.write_text(_BLENDER.format(python=sys.executable))
    blender.chmod(0o755)
    environment = os.environ | {
        "BLENDER_EXECUTABLE": str(blender),
        "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true",  # nothing leaves the machine
        "HOME": str(folder),  # where it keeps its settings
    }
    call = _Call(program, folder, environment)
    start = {
        "scene_file": str(scene_file),
        "render_engine": "cycles",
        "gpu_device": "NONE",
        "render_scene": "Scene",
        "view_layer": "ViewLayer",
        "output_dir": str(pictures),
        "output_file_name": "####",
    }
    call("start", "--init-data", json.dumps(start))
    try:
        yield call
    finally:
        call("stop")


class _Call:
    """Calls the adaptor's program; each call is a process, as in an OpenJD job."""

    def __init__(self, program: Path, folder: Path, environment: dict[str, str]) -> None:
        self._command = (str(program), "daemon")
        self._connection = ("--connection-file", str(folder / "connection"))
        self._log_path = folder / "adaptor.log"
        self._environment = environment

    def __call__(self, verb: str, *arguments: str) -> None:
        with self._log_path.open("ab") as log:
            done = subprocess.run(
                [*self._command, verb, *self._connection, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_TIMEOUT_S,
                check=False,
            )
        if done.returncode != 0:
            raise SystemExit(f"the adaptor's {verb} ended with status {done.returncode}; see {self._log_path}")
