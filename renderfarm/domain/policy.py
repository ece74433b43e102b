"""The scheduling policy: a pure function from the farm's state to placements.

Units go in order of priority, then of submission. A unit goes first to a worker that already has its scene
open, and never again to a worker on which it failed while another can take it. Short units are given ahead, so that a
worker need not wait for the scheduler between them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

#: Work that a worker may have before it, besides what it does: a unit that is more urgent waits no longer than this.
AHEAD_MAX_S = 0.5
#: However short they are: what a worker that dies had before it must be given to others, one by one.
AHEAD_UNITS_MAX = 400


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A unit that is ready."""

    unit_id: str
    order: tuple[int, str, int]
    """Minus the priority, the task's id (ids rise with time), the unit's position."""
    asset_id: str
    blenders: frozenset[str]
    """Blender versions that may render it."""
    needs_gpu: bool
    failed_on: frozenset[str]
    estimate_s: float | None = None
    """How long it will take, by the frames of its task that are done; None: nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A worker in service, free or not."""

    worker_id: str
    free: bool
    blenders: frozenset[str]
    gpus: int
    open_scene: str | None
    """Asset id of the scene its session has open."""
    units: int = 0
    """Units that it has been given and has not ended."""
    backlog_s: float = math.inf
    """How long they will take, of a worker that is not free; infinite: nobody knows."""

    @property
    def may_take(self) -> bool:
        """It is free, or is known to be so soon."""
        return self.free or (self.backlog_s < AHEAD_MAX_S and self.units < AHEAD_UNITS_MAX)


@dataclass(frozen=True, kw_only=True)
class Placement:
    unit_id: str
    worker_id: str
    estimate_s: float | None


def place(candidates: Iterable[Candidate], slots: Sequence[Slot]) -> list[Placement]:
    """Decide which ready unit goes to which worker now.

    A free worker is given one unit; more than one, or a worker that is not free any, only as far as all it has is known
    to be short.
    """
    room = _Room(slots)
    placements: list[Placement] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.order):
        if room.is_used_up:
            break
        worker_id = room.take(candidate)
        if worker_id is not None:
            placements.append(
                Placement(unit_id=candidate.unit_id, worker_id=worker_id, estimate_s=candidate.estimate_s)
            )
    return placements


#: Whether a worker has units, how long they will take, how many they are, and its id. Lower is better.
_Rank = tuple[bool, float, int, str]


class _Room:
    """What the workers can still take.

    Workers that a unit cannot tell apart stand in one heap, the least busy first: a thousand workers with ten scenes
    open between them cost a look at ten heaps for each unit.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = {slot.worker_id: slot for slot in slots}
        self._load = {slot.worker_id: (slot.units, 0.0 if slot.free else slot.backlog_s) for slot in slots}
        self._heaps: dict[tuple[frozenset[str], bool, str | None], list[_Rank]] = defaultdict(list)
        for slot in slots:
            if slot.may_take:
                self._heaps[slot.blenders, slot.gpus > 0, slot.open_scene].append(self._rank(slot.worker_id))
        for heap in self._heaps.values():
            heapify(heap)

    @property
    def is_used_up(self) -> bool:
        return not self._heaps

    def take(self, candidate: Candidate) -> str | None:
        """Find the best worker for a unit, and give it to that one."""
        if candidate.failed_on and any(_can_take(candidate, slot) for slot in self._untried(candidate)):
            # Another worker can take it, now or when it is free: wait for that one.
            worker_id = self._best(candidate, avoid=candidate.failed_on)
        else:
            worker_id = self._best(candidate, avoid=frozenset())
        if worker_id is not None:
            self._give(worker_id, candidate.estimate_s)
        return worker_id

    def _untried(self, candidate: Candidate) -> Iterator[Slot]:
        return (slot for slot in self._slots.values() if slot.worker_id not in candidate.failed_on)

    def _best(self, candidate: Candidate, avoid: frozenset[str]) -> str | None:
        choices = []
        for (blenders, has_gpu, open_scene), heap in self._heaps.items():
            if candidate.blenders.isdisjoint(blenders) or (candidate.needs_gpu and not has_gpu):
                continue
            rank = heap[0] if not avoid else min((rank for rank in heap if rank[-1] not in avoid), default=None)
            if rank is not None and _fits(candidate, rank):
                kept = has_gpu and not candidate.needs_gpu
                choices.append((rank[0], _warmth(candidate, open_scene), kept, rank))
        return min(choices)[-1][-1] if choices else None

    def _give(self, worker_id: str, estimate_s: float | None) -> None:
        slot = self._slots[worker_id]
        key = (slot.blenders, slot.gpus > 0, slot.open_scene)
        heap = self._heaps[key]
        if heap[0][-1] == worker_id:
            heappop(heap)
        else:
            heap.remove(self._rank(worker_id))
            heapify(heap)
        units, backlog_s = self._load[worker_id]
        self._load[worker_id] = (units + 1, backlog_s + (math.inf if estimate_s is None else estimate_s))
        units, backlog_s = self._load[worker_id]
        if backlog_s < AHEAD_MAX_S and units < AHEAD_UNITS_MAX:
            heappush(heap, self._rank(worker_id))
        elif not heap:
            del self._heaps[key]

    def _rank(self, worker_id: str) -> _Rank:
        units, backlog_s = self._load[worker_id]
        return (units > 0, backlog_s, units, worker_id)


def _fits(candidate: Candidate, rank: _Rank) -> bool:
    busy, backlog_s, _, _ = rank
    if not busy:
        return True
    return candidate.estimate_s is not None and backlog_s + candidate.estimate_s <= AHEAD_MAX_S


def _can_take(candidate: Candidate, slot: Slot) -> bool:
    return not candidate.blenders.isdisjoint(slot.blenders) and (slot.gpus > 0 or not candidate.needs_gpu)


def _warmth(candidate: Candidate, open_scene: str | None) -> int:
    """Lower is better: the scene open, then nothing open, then another scene."""
    if open_scene == candidate.asset_id:
        return 0
    return 1 if open_scene is None else 2
