"""Which warm frames are rendered cold as well, to see whether what a session keeps between frames changes a pixel."""

from __future__ import annotations

from renderfarm.domain.models import Output, Task
from renderfarm.domain.render_settings import PersistentData

#: The first warm frame of a task of so many is verified, and the second of one of so many. Of shorter tasks none is: a
#: cold frame may take as long as ten warm ones.
_FRAMES_FOR_FIRST = (8, 200)
#: And of all later ones this share, at random: even where a cold frame takes ten times as long, that costs two percent.
_SAMPLE = 0.002
#: Keeping data must save so many times what verifying it costs, and at least so much of a frame, for the memory's sake.
_SAVING = 1.5
_SAVING_MIN = 0.02
#: How far values of the two may be apart. On one kind of processor they have the same bits; on another, or on GPUs, the
#: last bits may differ, which nobody can see: one step of 255.
TOLERANCE = 1 / 255


def should_verify(task: Task, chance: float) -> bool:
    """Tell whether a warm frame that a task has got is to be verified.

    Args:
        task: as it is with that frame.
        chance: a random number from 0 to 1.
    """
    if task.cold or task.settings.persistent_data is not PersistentData.AUTO:
        return False
    return task.verifications < _firsts(task) or chance < _SAMPLE


def saving_min(task: Task) -> float:
    """Return which share of a frame, 0 to 1, must be saved by keeping data of one for the next, for that to pay.

    In tasks that are too short to verify any it is as much as in the shortest that are not.
    """
    firsts_share = max(1, _firsts(task)) / max(_FRAMES_FOR_FIRST[0], task.frames_total)
    return max(_SAVING_MIN, _SAVING * (firsts_share + _SAMPLE))


def _firsts(task: Task) -> int:
    return sum(task.frames_total >= frames for frames in _FRAMES_FOR_FIRST)


def in_doubt(outputs: list[Output]) -> list[Output]:
    """Return what must be rendered again once a warm frame has turned out wrong: every warm one."""
    return [output for output in outputs if output.warm]
