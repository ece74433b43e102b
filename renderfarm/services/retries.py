"""Retrying what has ended: all failed units of a task, or named frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from renderfarm.auth import Principal
from renderfarm.domain.frames import format_frames, parse_frames
from renderfarm.domain.models import Task, Unit
from renderfarm.domain.states import TASK_ENDED, UNIT_ENDED, TaskState, UnitState
from renderfarm.errors import Conflict, InvalidFrames
from renderfarm.ports import Farm, Transaction
from renderfarm.services.journal import Cause, move_task, move_unit, note_task, touch_task
from renderfarm.services.tasks import TOPIC_TASK, lock_task

_NOT_DONE = (UnitState.FAILED, UnitState.CANCELLED)


def retry_task(farm: Farm, principal: Principal, task_id: str, frames: str | None) -> Task:
    """Render again what failed or was cancelled, or the named frames whatever became of them.

    Raises:
        NotFound: no such task.
        InvalidFrames: malformed, or none of the task's.
        Conflict: there is nothing to retry.
    """
    wanted = None if frames is None else parse_frames(frames)
    with farm.database.write() as tx:
        task = lock_task(tx, principal, task_id)
        cause = Cause(reason=_reason(wanted), actor=principal.actor, at=farm.clock())
        units = _units_to_retry(tx, task, wanted)
        if not units and (task.units_total > 0 or task.state not in TASK_ENDED):
            raise Conflict(f"nothing to retry: no frame of task {task_id} has ended without a result")
        task = _reopen(tx, task, units, cause)
        undone = sum(_restart(tx, unit, wanted, task.revision, cause) for unit in units)
        tx.units.hold(task.id, task.state is TaskState.PAUSED)
        if undone:
            task = touch_task(tx, task, replace(task, frames_done=task.frames_done - undone), cause)
        if task.units_total == 0:
            tx.outbox.add(TOPIC_TASK, task.id, cause.at)
    farm.compute.wake()
    return task


def _reason(wanted: tuple[int, ...] | None) -> str:
    return "retry of all that failed" if wanted is None else f"retry of frames {format_frames(wanted)[:100]}"


def _units_to_retry(tx: Transaction, task: Task, wanted: tuple[int, ...] | None) -> list[Unit]:
    if wanted is None:
        return list(tx.units.of_task(task.id, _NOT_DONE).items)
    frames = set(wanted)
    units = [unit for unit in tx.units.of_task(task.id).items if not frames.isdisjoint(unit.frames)]
    unknown = frames.difference(*(unit.frames for unit in units))
    if unknown:
        raise InvalidFrames(f"frames {format_frames(sorted(unknown))[:100]} are not of this task")
    return [unit for unit in units if unit.state in UNIT_ENDED]


def _reopen(tx: Transaction, task: Task, units: Sequence[Unit], cause: Cause) -> Task:
    """Count the units as open again, and take an ended task back to the queue."""
    failed = task.units_failed - sum(unit.state is UnitState.FAILED for unit in units)
    new = replace(
        task,
        units_open=task.units_open + len(units),
        units_failed=failed,
        failure=task.failure if failed else None,
        finished_at=None,
    )
    if task.state in TASK_ENDED:
        return move_task(tx, task, replace(new, state=TaskState.QUEUED), cause)
    task = touch_task(tx, task, new, cause)
    note_task(tx, task, "task.retry", cause)
    return task


def _restart(tx: Transaction, unit: Unit, wanted: tuple[int, ...] | None, revision: int, cause: Cause) -> int:
    """Make a unit ready again and forget the outputs of the wanted frames; return how many frames that undoes."""
    outputs = tx.outputs.of_unit(unit.id)
    undone = [output for output in outputs if wanted is not None and output.frame in wanted]
    kept = {output.frame for output in outputs} - {output.frame for output in undone}
    tx.outputs.remove([output.id for output in undone])
    new = replace(
        unit,
        state=UnitState.READY,
        frames_done=len(kept),
        worker_id=None,
        lease_expires_at=None,
        not_before=0.0,
        progress=0.0,
        progress_note="",
        failed_on=(),
        failures=(),
        failure=None,
    )
    move_unit(tx, unit, new, cause, revision)
    return unit.frames_done - len(kept)
