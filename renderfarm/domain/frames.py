"""Frame ranges as people write them: ``1-10,15,20-40x5`` and ``-5--1``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from renderfarm.errors import InvalidFrames

#: Blender's own limits: MINAFRAME and MAXFRAME in DNA_scene_types.h.
FRAME_MIN = -1_048_574
FRAME_MAX = 1_048_574
#: Almost three hours of film at 24 frames per second; more is taken for a mistake.
FRAMES_PER_TASK_MAX = 250_000

_PART = re.compile(r"^(-?\d+)(?:-(-?\d+)(?:x(\d+))?)?$", re.ASCII)
_NUMBER_LENGTH_MAX = 9


def parse_frames(text: str) -> tuple[int, ...]:
    """Return the frames that ``text`` names, in ascending order, each once.

    A part is a frame (``7``, ``-3``), a range (``1-10``, ``-5--1``) or a stepped range (``1-10x3``: 1, 4, 7, 10).

    Raises:
        InvalidFrames: empty, malformed, backwards, a step of zero, or beyond Blender's frame limits.
    """
    frames: set[int] = set()
    parts = [part.strip() for part in text.split(",")]
    if parts == [""]:
        raise InvalidFrames("the frame range is empty")
    for part in parts:
        frames.update(_part_frames(part))
        if len(frames) > FRAMES_PER_TASK_MAX:
            raise InvalidFrames(f"the frame range names more than {FRAMES_PER_TASK_MAX} frames")
    return tuple(sorted(frames))


def _part_frames(part: str) -> range:
    match = _PART.match(part)
    if match is None:
        raise InvalidFrames(f"{part[:40]!r} is not a frame or a range; write 7, 1-10 or 1-10x2, separated by commas")
    if any(len(number) > _NUMBER_LENGTH_MAX for number in match.groups(default="")):
        raise InvalidFrames(f"{part[:40]!r} is beyond Blender's frames ({FRAME_MIN} to {FRAME_MAX})")
    first = int(match[1])
    last = int(match[2]) if match[2] is not None else first
    step = int(match[3]) if match[3] is not None else 1
    if step < 1:
        raise InvalidFrames(f"{part!r} has a step of zero")
    if last < first:
        raise InvalidFrames(f"{part!r} runs backwards; write the lower frame first")
    if first < FRAME_MIN or last > FRAME_MAX:
        raise InvalidFrames(f"{part!r} is beyond Blender's frames ({FRAME_MIN} to {FRAME_MAX})")
    return range(first, last + 1, step)


def format_frames(frames: Sequence[int]) -> str:
    """Write frames as short text that ``parse_frames`` reads back; ``frames`` must ascend."""
    parts: list[str] = []
    start = 0
    while start < len(frames):
        stop, step = _run_end(frames, start)
        first, last = frames[start], frames[stop - 1]
        if stop - start < 3 and step != 1:
            parts.append(str(first))
            start += 1
            continue
        parts.append(_format_run(first, last, step))
        start = stop
    return ",".join(parts)


def _run_end(frames: Sequence[int], start: int) -> tuple[int, int]:
    """Return where the evenly stepped run that begins at ``start`` ends (exclusive), and its step."""
    if start + 1 >= len(frames):
        return start + 1, 1
    step = frames[start + 1] - frames[start]
    stop = start + 2
    while stop < len(frames) and frames[stop] - frames[stop - 1] == step:
        stop += 1
    return stop, step


def _format_run(first: int, last: int, step: int) -> str:
    if first == last:
        return str(first)
    return f"{first}-{last}" if step == 1 else f"{first}-{last}x{step}"
