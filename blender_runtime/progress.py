"""How far a frame is, from the line of statistics that Blender shows while it renders."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import bpy

from blender_runtime.process import peak_memory_bytes
from blender_runtime.protocol import Progress

INTERVAL_S = 0.5

# Cycles writes "Sample 3/16", for large pictures "Rendered 1/4 Tiles, Sample 3/16"; EEVEE "Rendering 3 / 16 samples".
_SAMPLE = re.compile(r"(?:Rendered (\d+)/(\d+) Tiles, )?(?:Sample|Rendering) (\d+) ?/ ?(\d+)")


class Reporter:
    """Turns Blender's statistics into progress, at most every ``INTERVAL_S``.

    A frame takes a pass for each of its view layers and views. Not every Blender names the layer in work, but in
    all of them the samples start anew with each.
    """

    def __init__(self, passes: int, send: Callable[[Progress], None]) -> None:
        self._passes = passes
        self._send = send
        self.begin(0)

    def begin(self, frame: int, *, is_short: bool = False) -> None:
        """Start another frame.

        Args:
            is_short: it probably ends before there is anything to tell: each message takes its time of both sides.
        """
        self._frame = frame
        self._is_short = is_short
        self._passes_done = 0
        self._share = 0.0
        """Share of the pass in work that is done, 0 to 1."""
        self._sampling = False
        self._began_at = time.monotonic()
        self._sent_at = self._began_at if is_short else 0.0
        self._first_sample_at: float | None = None

    @property
    def preparation_s(self) -> float:
        """What went by before the first samples of the frame, for as many passes; 0 where nobody told of samples."""
        return 0.0 if self._first_sample_at is None else self._passes * (self._first_sample_at - self._began_at)

    def update(self, statistics: str) -> None:
        """Take in a line such as ``Fra:1 Mem:8.39M … | Scene, ViewLayer | Sample 3/16``."""
        share = _share_done(statistics)
        # Cycles may be silent for seconds after its first samples: that it has come to them must not be left out.
        first = share is not None and not self._sampling
        self._sampling = share is not None
        if share is not None:
            self._passes_done += share < self._share
            self._share = share
        now = time.monotonic()
        if self._first_sample_at is None and share is not None:
            self._first_sample_at = now
        if (first and not self._is_short) or now - self._sent_at >= INTERVAL_S:
            self._sent_at = now
            self.tell(statistics.rpartition(" | ")[2].strip())

    def tell(self, note: str) -> None:
        """Send the present progress."""
        fraction = min(1.0, (self._passes_done + self._share) / self._passes)
        progress = Progress(frame=self._frame, fraction=fraction, note=note[:200], memory_bytes=peak_memory_bytes())
        self._send(progress)


def _share_done(statistics: str) -> float | None:
    """Return the share of the samples of a pass that are done, or None where the line tells of other things."""
    match = _SAMPLE.search(statistics)
    if match is None:
        return None
    tiles_done, tiles, samples_done, samples = (int(number or 0) for number in match.groups())
    return min(1.0, (tiles_done + samples_done / max(1, samples)) / max(1, tiles))


@contextlib.contextmanager
def reporting(scene: bpy.types.Scene, send: Callable[[Progress], None]) -> Iterator[Reporter]:
    """Report the progress of what is rendered inside the ``with`` block."""
    render = scene.render
    layers = sum(layer.use for layer in scene.view_layers)
    views = sum(view.use for view in render.views) if render.use_multiview else 1
    reporter = Reporter(max(1, layers * views), send)

    def on_statistics(statistics: str, *_: object) -> None:
        reporter.update(statistics)

    bpy.app.handlers.render_stats.append(on_statistics)
    try:
        yield reporter
    finally:
        bpy.app.handlers.render_stats.remove(on_statistics)
