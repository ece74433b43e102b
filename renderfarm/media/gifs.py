"""GIF movies: each frame has the 256 colours that suit it best, and an ordered dither that does not crawl."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

#: GIF counts in hundredths of a second, and browsers show frames of less than two of them at a tenth of the speed.
_TIME_BASE = Fraction(1, 100)
_RATE_MAX = 50


def gif_rate(frame_rate: Fraction) -> Fraction:
    """Return the frames a second that a GIF shows: of faster ones, every second, every third, … is left out."""
    return frame_rate / ceil(frame_rate / _RATE_MAX)


def write_gif(frames: Iterable[NDArray[Any]], path: Path, frame_rate: Fraction) -> int:
    """Write frames of shape (height, width, 3), uint8 or uint16, over and over; return how many are in the file."""
    step = ceil(frame_rate / _RATE_MAX)
    count = 0
    with av.open(str(path), "w", format="gif", options={"fflags": "+bitexact", "loop": "0"}) as container:
        stream, graph = None, None
        for index, pixels in enumerate(frames):
            if index % step:
                continue
            frame = av.VideoFrame.from_ndarray(_eight_bits(pixels), format="rgb24")
            if graph is None or stream is None:
                graph = _palette_graph(frame)
                stream = container.add_stream("gif", rate=gif_rate(frame_rate))
                assert isinstance(stream, av.VideoStream)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "pal8"
                stream.codec_context.time_base = _TIME_BASE
            frame.time_base, frame.pts = _TIME_BASE, _hundredths(count, frame_rate / step)
            graph.push(frame)
            shown = graph.pull()
            assert isinstance(shown, av.VideoFrame)
            shown.time_base, shown.pts = _TIME_BASE, frame.pts
            shown.duration = _hundredths(count + 1, frame_rate / step) - frame.pts
            container.mux(stream.encode(shown))
            count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return count


def _hundredths(index: int, rate: Fraction) -> int:
    """Return when a frame is due. Rounded each for itself, so that the whole keeps its speed."""
    return round(index / rate / _TIME_BASE)


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / 257).astype(np.uint8)


def _palette_graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_TIME_BASE)
    split = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
