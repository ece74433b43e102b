"""Which warm frames are rendered cold as well, to see whether what a session keeps between frames changes a pixel."""

from __future__ import annotations

from renderfarm.domain.models import Output, Task
from renderfarm.domain.render_settings import PersistentData

#: The first warm frames of a task are verified, but no more than one in so many: a cold frame may take as long as ten
#: warm ones, and a verification leaves another session cold.
_FIRST = 2
_FRAMES_PER_FIRST = 8
#: And of all later ones this share, at random.
_SAMPLE = 0.005
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
    return task.verifications < min(_FIRST, task.frames_total // _FRAMES_PER_FIRST) or chance < _SAMPLE


def in_doubt(outputs: list[Output]) -> list[Output]:
    """Return what must be rendered again once a warm frame has turned out wrong: every warm one."""
    return [output for output in outputs if output.warm]
