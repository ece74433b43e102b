"""What ``render.py`` renders: the scenes' sizes, and who renders which of them how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Contender(StrEnum):
    """Who renders."""

    FARM = "farm"
    BLENDER_A = "blender_a"
    BLENDER_A_KEPT = "blender_a_persistent"
    PER_FRAME = "process_per_frame"
    PER_CHUNK = "process_per_chunk"
    ADAPTOR = "openjd_adaptor"


TITLES: Mapping[Contender, str] = {
    Contender.FARM: "the farm",
    Contender.BLENDER_A: "blender -a",
    Contender.BLENDER_A_KEPT: "blender -a, data kept",
    Contender.PER_FRAME: "a process per frame",
    Contender.PER_CHUNK: "a process per chunk",
    Contender.ADAPTOR: "OpenJD adaptor",
}

_PAIR = (Contender.BLENDER_A, Contender.FARM)
_OTHERS = (Contender.BLENDER_A_KEPT, Contender.PER_FRAME, Contender.PER_CHUNK, Contender.ADAPTOR)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scene, and how it is measured."""

    name: str
    """Of its folder, its file and its figures."""
    title: str
    frames: int
    maker: str
    """Which function of ``render_scenes.py`` makes it."""
    size: Mapping[str, Any] = field(default_factory=dict)
    """What that function is told beyond the number of frames."""
    rounds: int
    always: tuple[Contender, ...] = _PAIR
    """Who renders it in each round, in this order."""
    once: tuple[Contender, ...] = ()
    """Who renders it in the first round too."""
    few: int = 4
    """How many frames a process per frame renders: each costs the same."""
    chunk: int = 8
    """How many frames a chunk has, of which only the first is rendered; the adaptor renders as many."""
    worker_per_core: bool = False
    """The farm has a worker for each core, as far as eight go; else as many as it has by itself."""
    tolerance: float = 0.0
    """How much the farm's pictures may differ: linear ones by nothing."""

    def order(self, threads: int) -> dict[str, Any]:
        """Return what ``render_scenes.py`` is told."""
        return {"maker": self.maker, "frames": self.frames, "threads": threads, **self.size}

    def contenders(self, number: int) -> tuple[Contender, ...]:
        """Return who renders in a round; rounds count from 0.

        Every other round goes the other way round: a machine that gets slower all the time favours nobody.
        """
        if number >= self.rounds:
            return ()
        return self.always[:: -1 if number % 2 else 1] + (self.once if number == 0 else ())


def cases(*, cores: int, quick: bool) -> tuple[Case, ...]:
    """Return the cases, in the order in which they are rendered; ``quick``: for a try-out, whose ratios say little.

    Frames that are to be long are as long with many cores as with few.

    An animation whose data are kept has some dozens of frames, as the farm pays for its first ones: each worker renders
    one before it has anything to keep, and the first warm one is verified.
    """
    return (
        Case(
            name="sync_bound",
            title="sync-bound",
            maker="sync",
            frames=8 if quick else 60,
            size={"objects": 18, "levels": 4, "samples": 4, "moving": False},
            rounds=1,
            once=_OTHERS,
            few=2 if quick else 3,
            chunk=3 if quick else 4,
        ),
        Case(
            name="sync_bound_moving",
            title="sync-bound, object moves",
            maker="sync",
            frames=4 if quick else 8,
            size={"objects": 18, "levels": 4, "samples": 4, "moving": True},
            rounds=1,
        ),
        Case(
            name="sampling_bound",
            title="sampling-bound",
            maker="sampling",
            frames=4 if quick else 8,
            size={"samples": (16 if quick else 64) * cores, "width_px": 320},
            rounds=1 if quick else 5,
            once=() if quick else tuple(other for other in _OTHERS if other is not Contender.BLENDER_A_KEPT),
            few=2,
            chunk=4,
        ),
        Case(
            name="short_frames",
            title="many short frames",
            maker="short",
            frames=40 if quick else 100,
            size={"samples": 8},
            worker_per_core=True,
            rounds=1 if quick else 7,
            always=(*_PAIR, Contender.PER_FRAME),
            once=tuple(other for other in _OTHERS if other is not Contender.PER_FRAME),
            few=4 if quick else 8,
            chunk=4 if quick else 8,
            tolerance=1 / 255,  # 8-bit PNG
        ),
        Case(
            name="still",
            title="one big still",
            maker="still",
            frames=1,
            size={"samples": 8 if quick else 48, "width_px": 960, "adaptive": False},
            worker_per_core=True,
            rounds=1 if quick else 4,
        ),
        Case(
            name="still_adaptive",
            title="still, adaptive, denoised",
            maker="still",
            frames=1,
            size={"samples": 8 if quick else 48, "width_px": 960, "adaptive": True},
            worker_per_core=True,
            rounds=1,
        ),
        Case(
            name="textures",
            title="textures heavy",
            maker="textures",
            frames=4 if quick else 12,
            size={"samples": 16, "textures": 18, "texture_px": 2048},
            rounds=1,
            once=(Contender.BLENDER_A_KEPT,) if quick else _OTHERS,
            few=2,
            chunk=4,
        ),
    )
