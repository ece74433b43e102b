"""Plain Blender's processes: one for all frames, one for each frame, one for each chunk of frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("render_blender.py")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What somebody has rendered."""

    seconds: float
    """All of it, the start of processes included."""
    frames: int
    """How many in that time."""
    rendering_s: float | None = None
    """Of that, from the first frame's beginning to the last one's end; None: not told."""
    peak_memory_bytes: int | None = None
    """Of the largest Blender."""
    pictures: Path | None = None
    """The folder that has them."""

    @property
    def frame_s(self) -> float:
        """Seconds for a frame, everything included."""
        return self.seconds / self.frames


def render_in_processes(scene_file: Path, chunks: Sequence[range], folder: Path, *, keep_data: bool = False) -> Run:
    """Render chunks of frames one after the other, each by a Blender process with all threads that the scene names.

    Args:
        scene_file: a scene whose pictures are named by their frames alone.
        chunks: consecutive frames each.
        folder: where everything goes; it must not be there yet.
        keep_data: with Blender's Persistent Data on.
    """
    folder.mkdir(parents=True)
    pictures = folder / "pictures"
    job = {"file": str(scene_file), "output": f"{pictures}/", "keep_data": keep_data}
    seconds = rendering_s = 0.0
    peak_bytes = 0
    for number, frames in enumerate(chunks):
        times = folder / f"{number}.json"
        one = job | {"first": frames[0], "last": frames[-1], "times": str(times)}
        process_s, process_bytes = _run_blender(one, folder / f"{number}.log")
        seconds += process_s
        rendering_s += json.loads(times.read_text())
        peak_bytes = max(peak_bytes, process_bytes)
    wanted = sum(len(frames) for frames in chunks)
    written = len(list(pictures.iterdir()))
    if written != wanted:
        raise SystemExit(f"Blender wrote {written} of {wanted} pictures; see {folder}")
    return Run(seconds=seconds, frames=wanted, rendering_s=rendering_s, peak_memory_bytes=peak_bytes, pictures=pictures)


def _run_blender(job: dict[str, Any], log_path: Path) -> tuple[float, int]:
    """Run one process; return its seconds from start to end, and its peak memory."""
    started = time.perf_counter()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), json.dumps(job)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:  # nobody waits for it any more
            process.kill()
            raise
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"Blender ended with status {process.returncode}; see {log_path}")
    return seconds, used.ru_maxrss * 1024  # Linux counts it in KiB: getrusage(2)
