"""The scheduling policy: a pure function from the farm's state to placements.

Units go in order of priority, then of submission. A unit goes first to a worker that already has its scene
open, and never again to a worker on which it failed while another can take it. A unit that needs more memory than some
workers have goes to one that has it, or if none has, to one that has the most. Short units are given ahead, so that a
worker need not wait for the scheduler between them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

#: Work that a worker may have before it, with what it does: a unit that is more urgent waits no longer than this.
AHEAD_MAX_S = 10.0
#: And no more than this share of a worker's part of all that is to do, so that all end together.
_AHEAD_SHARE = 0.5
#: But its whole part once that is so little: the scheduler looks once a second, and nobody is to wait for it.
_AHEAD_MIN_S = 1.5
#: It is given more when it has only so much of that left: units given together cost less than one by one.
_REFILL_SHARE = 0.5
#: Or so little, as the scheduler looks once a second.
_REFILL_S = 2.0
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
    memory_bytes: int = 0
    """Memory that it is known to need; 0: nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A worker in service, free or not."""

    worker_id: str
    free: bool
    blenders: frozenset[str]
    gpus: int
    open_scene: str | None
    """Asset id of the scene its session has open."""
    memory_bytes: int = 0
    """Its share of its node's memory; 0: nobody knows."""
    units: int = 0
    """Units that it has been given and has not ended."""
    backlog_s: float = math.inf
    """How long they will take, of a worker that is not free; infinite: nobody knows."""

    def may_take(self, ahead_s: float = AHEAD_MAX_S) -> bool:
        """Tell whether it is free, or is known to be so soon.

        Args:
            ahead_s: work that a worker may have, see ``chunk_s``.
        """
        return self.free or (self.units < AHEAD_UNITS_MAX and self.runs_low(ahead_s))

    def runs_low(self, ahead_s: float) -> bool:
        """Tell of a worker that is not free whether it has little left of the work that it may have."""
        if self.units == 1:
            return self.backlog_s < AHEAD_MAX_S
        return self.backlog_s < max(_REFILL_SHARE * ahead_s, min(ahead_s, _REFILL_S))


@dataclass(frozen=True, kw_only=True)
class Placement:
    unit_id: str
    worker_id: str
    estimate_s: float | None
    lacks_bytes: int = 0
    """So much more memory than the worker has it is known to need; no worker has more."""


def chunk_s(candidates: Iterable[Candidate], slots: Sequence[Slot]) -> float:
    """Return how much work a worker may have at once: less towards the end, so that all workers end together."""
    estimates_s = [candidate.estimate_s or 0.0 for candidate in candidates]
    waiting_s = sum(estimates_s)
    given_s = sum(slot.backlog_s for slot in slots if not slot.free and slot.backlog_s < math.inf)
    part_s = (waiting_s + given_s) / max(1, len(slots))
    # One unit more than a worker's part, as somebody must have the last one.
    return min(AHEAD_MAX_S, max(_AHEAD_SHARE * part_s, min(part_s + max(estimates_s, default=0.0), _AHEAD_MIN_S)))


def place(candidates: Iterable[Candidate], slots: Sequence[Slot], *, ahead_s: float = AHEAD_MAX_S) -> list[Placement]:
    """Decide which ready unit goes to which worker now.

    A free worker is given one unit; more than one, or a worker that is not free any, only as far as all it has is known
    to be short.

    Args:
        ahead_s: work that a worker may have, see ``chunk_s``; one unit behind the one in work it may always have.
    """
    room = _Room(slots, ahead_s)
    placements: list[Placement] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.order):
        if room.is_used_up:
            break
        slot = room.take(candidate)
        if slot is not None:
            placements.append(
                Placement(
                    unit_id=candidate.unit_id,
                    worker_id=slot.worker_id,
                    estimate_s=candidate.estimate_s,
                    lacks_bytes=max(0, candidate.memory_bytes - slot.memory_bytes) if slot.memory_bytes else 0,
                )
            )
    return placements


#: Whether a worker has units, how long they will take, how many they are, and its id. Lower is better.
_Rank = tuple[bool, float, int, str]
#: All of a worker by which a unit can tell it from others: its Blenders, whether it has a GPU, its memory, its scene.
_Kind = tuple[frozenset[str], bool, int, str | None]


class _Room:
    """What the workers can still take.

    Workers that a unit cannot tell apart stand in one heap, the least busy first: a thousand workers with ten scenes
    open between them cost a look at ten heaps for each unit.
    """

    def __init__(self, slots: Sequence[Slot], ahead_s: float) -> None:
        self._ahead_s = ahead_s
        self._slots = {slot.worker_id: slot for slot in slots}
        self._load = {slot.worker_id: (slot.units, 0.0 if slot.free else slot.backlog_s) for slot in slots}
        self._sizes = {(slot.blenders, slot.gpus > 0, slot.memory_bytes) for slot in slots}
        self._heaps: dict[_Kind, list[_Rank]] = defaultdict(list)
        for slot in slots:
            if slot.may_take(ahead_s):
                self._heaps[_kind(slot)].append(self._rank(slot.worker_id))
        for heap in self._heaps.values():
            heapify(heap)

    @property
    def is_used_up(self) -> bool:
        return not self._heaps

    def take(self, candidate: Candidate) -> Slot | None:
        """Find the best worker for a unit, and give it to that one."""
        least_bytes = self._least_bytes(candidate)
        if candidate.failed_on and any(_can_take(candidate, slot, least_bytes) for slot in self._untried(candidate)):
            # Another worker can take it, now or when it is free: wait for that one.
            worker_id = self._best(candidate, least_bytes, avoid=candidate.failed_on)
        else:
            worker_id = self._best(candidate, least_bytes, avoid=frozenset())
        if worker_id is None:
            return None
        self._give(worker_id, candidate.estimate_s)
        return self._slots[worker_id]

    def _least_bytes(self, candidate: Candidate) -> int:
        """Return the memory that a worker must have for a unit: what it needs, or the most that there is."""
        if not candidate.memory_bytes:
            return 0
        able = (size for blenders, has_gpu, size in self._sizes if _is_able(candidate, blenders, has_gpu=has_gpu))
        return min(candidate.memory_bytes, max(able, default=0))

    def _untried(self, candidate: Candidate) -> Iterator[Slot]:
        return (slot for slot in self._slots.values() if slot.worker_id not in candidate.failed_on)

    def _best(self, candidate: Candidate, least_bytes: int, avoid: frozenset[str]) -> str | None:
        choices = []
        for (blenders, has_gpu, memory_bytes, open_scene), heap in self._heaps.items():
            if memory_bytes < least_bytes or not _is_able(candidate, blenders, has_gpu=has_gpu):
                continue
            rank = heap[0] if not avoid else min((rank for rank in heap if rank[-1] not in avoid), default=None)
            if rank is not None and self._fits(candidate, rank):
                kept = has_gpu and not candidate.needs_gpu
                busy, backlog_s, units, worker_id = rank
                # What has much memory is kept, too, where all else is the same.
                load = (backlog_s, units, memory_bytes)
                choices.append((busy, _warmth(candidate, open_scene), kept, load, worker_id))
        return min(choices)[-1] if choices else None

    def _fits(self, candidate: Candidate, rank: _Rank) -> bool:
        """Tell whether a worker may have a unit, too. One ahead of the one in work keeps it from waiting for us."""
        busy, backlog_s, units, _ = rank
        if not busy:
            return True
        if candidate.estimate_s is None:
            return False
        return backlog_s + candidate.estimate_s <= (AHEAD_MAX_S if units == 1 else self._ahead_s)

    def _give(self, worker_id: str, estimate_s: float | None) -> None:
        kind = _kind(self._slots[worker_id])
        heap = self._heaps[kind]
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
            del self._heaps[kind]

    def _rank(self, worker_id: str) -> _Rank:
        units, backlog_s = self._load[worker_id]
        return (units > 0, backlog_s, units, worker_id)


def _kind(slot: Slot) -> _Kind:
    return slot.blenders, slot.gpus > 0, slot.memory_bytes, slot.open_scene


def _can_take(candidate: Candidate, slot: Slot, least_bytes: int) -> bool:
    return slot.memory_bytes >= least_bytes and _is_able(candidate, slot.blenders, has_gpu=slot.gpus > 0)


def _is_able(candidate: Candidate, blenders: frozenset[str], *, has_gpu: bool) -> bool:
    return not candidate.blenders.isdisjoint(blenders) and (has_gpu or not candidate.needs_gpu)


def _warmth(candidate: Candidate, open_scene: str | None) -> int:
    """Lower is better: the scene open, then nothing open, then another scene."""
    if open_scene == candidate.asset_id:
        return 0
    return 1 if open_scene is None else 2
