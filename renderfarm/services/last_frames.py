"""The last long frames that there are to do are cut into tiles, so that all workers end together.

Without that, some would have nothing to do for as long as the others' last frames take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from renderfarm.domain.models import ReadyUnit, Task, Unit, UnitKind
from renderfarm.domain.paces import Pace, Paces
from renderfarm.domain.parts import Part
from renderfarm.domain.policy import Slot
from renderfarm.domain.splitting import cut_last_frame, is_worth_cutting, last_frames
from renderfarm.domain.states import UnitState
from renderfarm.ports import Farm, Transaction
from renderfarm.services.journal import SCHEDULER, Cause
from renderfarm.services.steps import Steps


def cut_last_frames(farm: Farm, epoch: int, slots: Sequence[Slot], paces: Paces) -> int:
    """Cut the last frames once no worker will have more than one after what it does; return how many were cut.

    The unit of such a frame becomes the one that merges its parts, and stays what others wait for.

    Args:
        slots: every worker in service.
        paces: what is known of how long frames take.

    Raises:
        Deposed: another scheduler has taken over.
    """
    if len(slots) < 2 or not any(slot.may_take() for slot in slots):
        return 0
    now = farm.clock()
    with farm.database.read() as tx:
        chosen = _choose(_ready(tx, slots, now), slots, paces)
    if not chosen:
        return 0
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        return _cut_all(farm, tx, chosen, now)


def _ready(tx: Transaction, slots: Sequence[Slot], now: float) -> list[ReadyUnit]:
    """Return all units that any worker could render now, or more than there are workers."""
    blenders = {blender for slot in slots for blender in slot.blenders}
    return tx.units.placeable(now, len(slots) + 1, blenders=blenders, with_gpu=True)


def _choose(ready: Sequence[ReadyUnit], slots: Sequence[Slot], paces: Paces) -> dict[str, Pace]:
    """Return the pace of each frame that is to be cut, by the id of its unit."""
    chosen: dict[str, Pace] = {}
    for number, unit in enumerate(reversed(ready)):
        pace = paces.of_task(unit.task_id)
        is_whole = unit.kind is UnitKind.RENDER and not unit.is_part and unit.frames_left == 1 and not unit.failures
        if pace is None or not is_whole or not is_worth_cutting(pace):
            continue
        helpers = sum(_can_help(slot, unit, pace, slots) for slot in slots)
        if len(ready) <= helpers and number < last_frames(helpers):
            chosen[unit.id] = pace
    return chosen


def _can_help(slot: Slot, unit: ReadyUnit, pace: Pace, slots: Sequence[Slot]) -> bool:
    """Tell whether a worker can render parts of a frame, and will have nothing else to do by then."""
    has_gpu = slot.gpus > 0 or not any(other.gpus for other in slots)  # where none is known, any worker may try
    has_memory = not slot.memory_bytes or slot.memory_bytes >= unit.memory_bytes
    is_able = unit.blender in slot.blenders and (has_gpu or not unit.needs_gpu) and has_memory
    # Of one whose backlog nobody knows it is assumed that it does what all do.
    is_late = not slot.free and 2 * pace.frame_s < slot.backlog_s < float("inf")
    return is_able and not is_late


def _cut_all(farm: Farm, tx: Transaction, chosen: dict[str, Pace], now: float) -> int:
    found = tx.units.some(chosen)
    steps = Steps(tx, {unit.task_id for unit in found.values()}).lock(found)
    cut = 0
    for unit_id, pace in chosen.items():
        unit = steps.unit(unit_id)
        task = None if unit is None else steps.task(unit.task_id)
        if unit is None or task is None or unit.state is not UnitState.READY:
            continue  # something else has happened to it
        facts = tx.assets.facts(task.asset_id)
        parts = () if facts is None else cut_last_frame(task.settings, facts, pace)
        if parts:
            _cut(farm, steps, unit, task, parts, now)
            cut += 1
    steps.write()
    return cut


def _cut(farm: Farm, steps: Steps, unit: Unit, task: Task, parts: Sequence[Part], now: float) -> None:
    reason = f"its frame is cut into {len(parts)} tiles, so that all workers end together"
    cause = Cause(reason=reason, actor=SCHEDULER, at=now)
    fresh = replace(unit, attempt=0, epoch=0, failed_on=(), failure=None, not_before=0.0, created_at=now)
    for number, part in enumerate(parts):
        position, share = task.units_total + number, 1 / len(parts)
        ours = replace(fresh, id=farm.new_id(), position=position, part=part, share=share, feeds=unit.id)
        steps.add_unit(ours, cause)
    steps.step_unit(
        replace(unit, kind=UnitKind.MERGE, state=UnitState.BLOCKED, inputs_open=len(parts), share=0.0), cause
    )
    units_total, units_open = task.units_total + len(parts), task.units_open + len(parts)
    steps.set_task(replace(task, units_total=units_total, units_open=units_open), cause)
