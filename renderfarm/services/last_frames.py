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
from renderfarm.domain.splitting import cut_last_frame, last_frames
from renderfarm.domain.states import UnitState
from renderfarm.ports import Farm, Transaction
from renderfarm.services.journal import SCHEDULER, Cause
from renderfarm.services.steps import Steps


def cut_last_frames(
    farm: Farm, tx: Transaction, ready: Sequence[ReadyUnit], slots: Sequence[Slot], paces: Paces, now: float
) -> int:
    """Cut the last frames once no worker will have more than one after what it does; return how many were cut.

    The unit of such a frame becomes the one that merges its parts, and stays what others wait for.

    Args:
        ready: all units that are ready.
        slots: every worker in service.
        paces: what is known of how long frames take.
    """
    if len(ready) > len(slots):
        return 0
    last = sorted(ready, key=lambda unit: (-unit.priority, unit.task_id or "", unit.position))
    last = last[max(0, len(last) - last_frames(len(slots))) :]
    known = {unit.id: pace for unit in last if (pace := _pace(unit, slots, paces)) is not None}
    if not known:
        return 0
    steps = Steps(tx, {unit.task_id for unit in last if unit.id in known}).lock(known)
    cut = 0
    for unit_id, pace in known.items():
        unit = steps.unit(unit_id)
        task = None if unit is None else steps.task(unit.task_id)
        if unit is None or task is None or unit.state is not UnitState.READY:
            continue
        parts = _parts(tx, task, pace)
        if parts:
            _cut(farm, steps, unit, task, parts, now)
            cut += 1
    steps.write()
    return cut


def _pace(unit: ReadyUnit, slots: Sequence[Slot], paces: Paces) -> Pace | None:
    """Return how long the frame will take; None: nobody knows, or it is none that can be cut."""
    is_whole = unit.kind is UnitKind.RENDER and not unit.is_part and unit.frames_left == 1 and not unit.failures
    is_shared = sum(unit.blender in slot.blenders for slot in slots) > 1
    return paces.of_task(unit.task_id) if is_whole and is_shared else None


def _parts(tx: Transaction, task: Task, pace: Pace) -> tuple[Part, ...]:
    asset = tx.assets.get(task.asset_id)
    return () if asset is None or asset.facts is None else cut_last_frame(task.settings, asset.facts, pace)


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
