"""The lowest revision of each task that may still be told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

#: More tasks than change at a time. What is forgotten is still bound by the age of a status.
_TASKS_MAX = 10_000


class Floors:
    """Revisions that this process knows of, the least lately risen forgotten first. Not for several threads."""

    def __init__(self, tasks_max: int = _TASKS_MAX) -> None:
        self._tasks_max = tasks_max
        self._floors: OrderedDict[str, int] = OrderedDict()

    def rise(self, revisions: Mapping[str, int]) -> None:
        """Allow nothing below these revisions any more."""
        for task_id, revision in revisions.items():
            self._floors[task_id] = max(revision, self._floors.pop(task_id, 0))
        while len(self._floors) > self._tasks_max:
            self._floors.popitem(last=False)

    def allow(self, task_id: str, revision: int) -> bool:
        """Tell whether a revision may still be told."""
        return revision >= self._floors.get(task_id, 0)
