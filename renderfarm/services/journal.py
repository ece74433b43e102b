"""The one place where states change: the transition table is asked, and the execution log is written with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from renderfarm.domain.models import Asset, LogEntry, ReadyUnit, Task, Unit
from renderfarm.domain.states import UnitState, check_step
from renderfarm.ports import Transaction

SCHEDULER = "scheduler"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why something changes, who does it, and when."""

    reason: str
    actor: str
    at: float


def move_asset(tx: Transaction, old: Asset, new: Asset, cause: Cause) -> bool:
    """Write an asset whose state changes; tell whether it still had the old one."""
    check_step(old.state, new.state)
    if not tx.assets.update(old, new):
        return False
    tx.log.add([_entry(cause, "asset.state", old.state, new.state, project_id=old.project_id, asset_id=old.id)])
    return True


def move_task(tx: Transaction, old: Task, new: Task, cause: Cause) -> Task:
    """Write a locked task whose state changes; return it as it is now."""
    check_step(old.state, new.state)
    task = tx.tasks.update(old, replace(new, updated_at=cause.at))
    tx.log.add([task_entry(cause, "task.state", old.state, new.state, task)])
    return task


def touch_task(tx: Transaction, old: Task, new: Task, cause: Cause) -> Task:
    """Write a locked task whose counters change, but not its state; return it as it is now."""
    return tx.tasks.update(old, replace(new, updated_at=cause.at))


def move_unit(tx: Transaction, old: Unit, new: Unit, cause: Cause, revision: int | None = None) -> bool:
    """Write a unit whose state changes; tell whether it still had the old state, attempt and epoch."""
    check_step(old.state, new.state)
    if not tx.units.update(old, new):
        return False
    tx.log.add([unit_entry(cause, "unit.state", old.state, new.state, new, revision)])
    return True


def note_task(tx: Transaction, task: Task, event: str, cause: Cause) -> None:
    """Write an entry on a task whose state does not change."""
    tx.log.add([task_entry(cause, event, None, None, task)])


def unit_entry(
    cause: Cause, event: str, old: str | None, new: str | None, unit: Unit | ReadyUnit, revision: int | None
) -> LogEntry:
    """Return an execution log entry on a unit's present attempt; on a ready unit's, the one that is to begin."""
    return _entry(
        cause,
        event,
        old,
        new,
        project_id=unit.project_id,
        asset_id=unit.asset_id,
        task_id=unit.task_id,
        unit_id=unit.id,
        attempt=unit.attempt + 1 if isinstance(unit, ReadyUnit) else unit.attempt or None,
        revision=revision,
    )


def asset_entry(cause: Cause, event: str, old: str | None, new: str | None, asset: Asset) -> LogEntry:
    """Return an execution log entry on an asset."""
    return _entry(cause, event, old, new, project_id=asset.project_id, asset_id=asset.id)


def log_units(
    tx: Transaction,
    task: Task,
    old: Collection[UnitState],
    new: UnitState,
    cause: Cause,
    unit_ids: Sequence[str] | None = None,
) -> None:
    """Check and log the step that all of a task's units in these states (of these ids only) are about to take.

    For many at once; the write itself is the caller's next statement.
    """
    for state in old:
        check_step(state, new)
    tx.log.add_for_units(_units_entry(cause, task, new), task.id, tuple(old), unit_ids)


def _units_entry(cause: Cause, task: Task, new: UnitState) -> LogEntry:
    return replace(task_entry(cause, "unit.state", None, new, task), asset_id=task.asset_id)


def task_entry(cause: Cause, event: str, old: str | None, new: str | None, task: Task) -> LogEntry:
    """Return an execution log entry on a task."""
    return _entry(
        cause,
        event,
        old,
        new,
        project_id=task.project_id,
        asset_id=task.asset_id,
        task_id=task.id,
        revision=task.revision,
    )


def _entry(
    cause: Cause,
    event: str,
    old: str | None,
    new: str | None,
    *,
    project_id: str,
    asset_id: str | None = None,
    task_id: str | None = None,
    unit_id: str | None = None,
    attempt: int | None = None,
    revision: int | None = None,
) -> LogEntry:
    return LogEntry(
        id=0,
        at=cause.at,
        project_id=project_id,
        asset_id=asset_id,
        task_id=task_id,
        unit_id=unit_id,
        attempt=attempt,
        event=event,
        old=old,
        new=new,
        reason=cause.reason,
        actor=cause.actor,
        revision=revision,
    )
