"""The scheduling policy: a pure function from the farm's state to placements.

Units go in order of priority, then of submission. A unit goes first to a worker that already has its scene
open, and never again to a worker on which it failed while another can take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A worker in service, free or not."""

    worker_id: str
    free: bool
    blenders: frozenset[str]
    gpus: int
    open_scene: str | None
    """Asset id of the scene its session has open."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    unit_id: str
    worker_id: str


def place(candidates: Iterable[Candidate], slots: Sequence[Slot]) -> list[Placement]:
    """Decide which ready unit starts on which free worker now. At most one unit a worker."""
    free = {slot.worker_id: slot for slot in slots if slot.free}
    placements: list[Placement] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.order):
        if not free:
            break
        slot = _best_slot(candidate, free.values(), slots)
        if slot is not None:
            placements.append(Placement(unit_id=candidate.unit_id, worker_id=slot.worker_id))
            del free[slot.worker_id]
    return placements


def _best_slot(candidate: Candidate, free: Iterable[Slot], slots: Sequence[Slot]) -> Slot | None:
    able = [slot for slot in free if _can_take(candidate, slot)]
    if candidate.failed_on and any(_can_take(candidate, slot) for slot in _untried(candidate, slots)):
        # Another worker can take it, now or when it is free: wait for that one.
        able = list(_untried(candidate, able))
    return min(able, key=lambda slot: _preference(candidate, slot), default=None)


def _untried(candidate: Candidate, slots: Iterable[Slot]) -> Iterable[Slot]:
    return (slot for slot in slots if slot.worker_id not in candidate.failed_on)


def _can_take(candidate: Candidate, slot: Slot) -> bool:
    return not candidate.blenders.isdisjoint(slot.blenders) and (slot.gpus > 0 or not candidate.needs_gpu)


def _preference(candidate: Candidate, slot: Slot) -> tuple[int, bool, str]:
    """Lower is better: the scene open, then nothing open, then another scene; GPUs kept for those who need them."""
    if slot.open_scene == candidate.asset_id:
        warmth = 0
    else:
        warmth = 1 if slot.open_scene is None else 2
    return (warmth, slot.gpus > 0 and not candidate.needs_gpu, slot.worker_id)
