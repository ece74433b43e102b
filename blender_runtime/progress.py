"""How far a frame is, from the line of statistics that Blender shows while it renders."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import bpy

from blender_runtime.process import peak_memory_bytes
from blender_runtime.protocol import Progress

INTERVAL_S = 0.2

# Cycles writes "Sample 3/16", EEVEE "Rendering 3 / 16 samples".
_SAMPLE = re.compile(r"(?:Sample|Rendering)\s+(\d+)\s*/\s*(\d+)")


class Reporter:
    """Turns Blender's statistics into progress, at most every ``INTERVAL_S``."""

    def __init__(self, layers: list[str], send: Callable[[Progress], None]) -> None:
        self._layers = layers
        self._send = send
        self._frame = 0
        self._fraction = 0.0
        self._sent_at = 0.0

    def begin(self, frame: int) -> None:
        """Start another frame, and say so."""
        self._frame, self._fraction, self._sent_at = frame, 0.0, 0.0
        self.update("")

    def update(self, statistics: str) -> None:
        """Take in a line such as ``Fra:1 Mem:8.39M … | Scene, ViewLayer | Sample 3/16``."""
        # It never falls, as several passes of one frame may each count their own samples.
        self._fraction = max(self._fraction, fraction(statistics, self._layers))
        now = time.monotonic()
        if now - self._sent_at >= INTERVAL_S:
            self._sent_at = now
            note = statistics.rpartition(" | ")[2].strip()
            memory = peak_memory_bytes()
            self._send(Progress(frame=self._frame, fraction=self._fraction, note=note[:200], memory_bytes=memory))


def fraction(statistics: str, layers: list[str]) -> float:
    """Return the share that is done, 0 to 1, each of the view layers (``Scene, ViewLayer``) counting the same."""
    sample = _SAMPLE.search(statistics)
    if sample is None or int(sample[2]) == 0:
        return 0.0
    parts = statistics.split(" | ")
    before = next((index for index, layer in enumerate(layers) if layer in parts), 0)
    return min(1.0, (before + int(sample[1]) / int(sample[2])) / max(1, len(layers)))


@contextlib.contextmanager
def reporting(scene: bpy.types.Scene, send: Callable[[Progress], None]) -> Iterator[Reporter]:
    """Report the progress of what is rendered inside the ``with`` block."""
    layers = [f"{scene.name}, {layer.name}" for layer in scene.view_layers if layer.use]
    reporter = Reporter(layers, send)

    def on_statistics(statistics: str, *_: object) -> None:
        reporter.update(statistics)

    bpy.app.handlers.render_stats.append(on_statistics)
    try:
        yield reporter
    finally:
        bpy.app.handlers.render_stats.remove(on_statistics)
