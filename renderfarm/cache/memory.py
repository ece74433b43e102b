"""Statuses in the memory of one process, for a farm whose only HTTP replica is the one that asks."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from renderfarm.cache.floors import Floors
from renderfarm.domain.models import TaskStatus

#: Other processes write, too, and only who follows the events hears of it; so a status is not kept for long.
LIFE_S = 0.5
_STATUSES_MAX = 10_000


@dataclass(frozen=True, kw_only=True)
class _Kept:
    status: TaskStatus
    read_at: float

    def is_after(self, other: _Kept) -> bool:
        return (self.status.revision, self.read_at) >= (other.status.revision, other.read_at)


class MemoryStatuses:
    """Implements ``ports.Statuses``."""

    def __init__(self, life_s: float = LIFE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._life_s = life_s
        self._clock = clock
        self._lock = Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._floors = Floors()

    def get(self, task_id: str) -> TaskStatus | None:
        with self._lock:
            kept = self._kept.get(task_id)
        return kept.status if kept is not None and self._is_fresh(kept.read_at) else None

    def at_hand(self, task_id: str) -> TaskStatus | None:
        return self.get(task_id)

    def allows(self, status: TaskStatus) -> bool:
        """Tell whether a status is none that was outdated."""
        with self._lock:
            return self._floors.allow(status.task_id, status.revision)

    def now(self) -> float:
        return self._clock()

    def _is_fresh(self, read_at: float) -> bool:
        return 0.0 <= self._clock() - read_at < self._life_s

    def keep(self, statuses: Sequence[TaskStatus], read_at: float) -> None:
        if not self._is_fresh(read_at):
            return
        with self._lock:
            for status in statuses:
                self._keep(_Kept(status=status, read_at=read_at))
            while len(self._kept) > _STATUSES_MAX:
                self._kept.popitem(last=False)

    def _keep(self, new: _Kept) -> None:
        task_id = new.status.task_id
        old = self._kept.get(task_id)
        if self._floors.allow(task_id, new.status.revision) and (old is None or new.is_after(old)):
            self._kept[task_id] = new
            self._kept.move_to_end(task_id)

    def outdate(self, revisions: Mapping[str, int]) -> None:
        with self._lock:
            self._floors.rise(revisions)
            for task_id in revisions.keys() & self._kept.keys():
                if not self._floors.allow(task_id, self._kept[task_id].status.revision):
                    del self._kept[task_id]

    def kept(self, task_ids: Collection[str]) -> dict[str, int]:
        with self._lock:
            return {task_id: self._kept[task_id].status.revision for task_id in task_ids if task_id in self._kept}

    def check(self) -> None: ...

    def close(self) -> None: ...
