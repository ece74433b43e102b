"""Retrying what has ended: all failed units of a task, or named frames."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from renderfarm.auth import Principal
from renderfarm.domain.failures import Failure
from renderfarm.domain.frames import format_frames, parse_frames
from renderfarm.domain.leases import AttemptReport, Lease
from renderfarm.domain.models import Output, Task, UnitKind
from renderfarm.domain.states import TASK_ENDED, UNIT_ENDED, AttemptState, TaskState, UnitState
from renderfarm.errors import Conflict, InvalidFrames
from renderfarm.ports import Farm, Transaction
from renderfarm.services.dependencies import block_again, in_work, inputs_of, parts_done, with_related
from renderfarm.services.failing import fail_unit
from renderfarm.services.journal import Cause, log_units, move_task, note_task, touch_task
from renderfarm.services.outputs import withdraw
from renderfarm.services.repeating import repeated_if_undone
from renderfarm.services.results import NO_REPORT, at_rest, fenced, without_outputs
from renderfarm.services.steps import Steps
from renderfarm.services.tasks import TOPIC_TASK, lock_task

_NOT_DONE = (UnitState.FAILED, UnitState.CANCELLED)


def retry_task(farm: Farm, principal: Principal, task_id: str, frames: str | None) -> Task:
    """Render again what failed or was cancelled, or the named frames whatever became of them.

    Raises:
        NotFound: no such task.
        InvalidFrames: malformed, or none of the task's.
        Conflict: there is nothing to retry.
    """
    task, undone = _retry(farm, principal, task_id, None if frames is None else parse_frames(frames))
    for output in undone:
        withdraw(farm, output)
    farm.compute.wake()
    return task


@repeated_if_undone
def _retry(
    farm: Farm, principal: Principal, task_id: str, wanted: tuple[int, ...] | None
) -> tuple[Task, Sequence[Output]]:
    """Return the task as it is now, and the outputs that are its own no more."""
    with farm.database.write() as tx:
        task = lock_task(tx, principal, task_id)
        cause = Cause(reason=_reason(wanted), actor=principal.actor, at=farm.clock())
        if wanted is None:
            return _restart(tx, task, _NOT_DONE, None, cause), ()
        return _undo(tx, task, _units_with(tx, task, wanted), frozenset(wanted), cause)


def undo_frames(tx: Transaction, task: Task, outputs: Collection[Output], cause: Cause) -> Sequence[Output]:
    """Render frames of a locked task again; return the outputs that are its own no more, for ``withdraw``.

    Raises:
        Conflict: none of their units has ended.
    """
    unit_ids = {output.unit_id for output in outputs}
    return _undo(tx, task, unit_ids, {output.frame for output in outputs}, cause)[1]


def fail_flawed_merge(farm: Farm, lease: Lease, failure: Failure, report: AttemptReport) -> None:
    """End an attempt to merge whose picture looks wrong: its parts are rendered again.

    Merging the same parts once more would give the same picture.

    Raises:
        LeaseLost
    """
    cause = Cause(reason=failure.message, actor=f"worker:{lease.worker_id}", at=farm.clock())
    with farm.database.write() as tx:
        steps = Steps(tx, [lease.task_id]).lock([lease.unit_id])
        unit = fenced(steps.unit(lease.unit_id), lease)
        fail_unit(farm, tx, steps, unit, failure, cause, report)
        task = tx.tasks.lock(lease.task_id or "")
        now = tx.units.some([unit.id])[unit.id]
        if task is None or now.state is not UnitState.READY or now.kind is not UnitKind.MERGE:
            return
        parts = inputs_of(tx, task.id, unit.id)
        undone = tx.outputs.remove(parts, unit.frames)
        cause = replace(cause, reason=f"its parts are rendered again: {failure.message}")
        _restart(tx, without_outputs(task, undone), tuple(UNIT_ENDED), parts, cause)


def _undo(
    tx: Transaction, task: Task, unit_ids: Collection[str], frames: Collection[int], cause: Cause
) -> tuple[Task, Sequence[Output]]:
    """Take frames of some units, and what was made of them, back to the start."""
    related = with_related(tx, task.id, unit_ids)
    _take_back(tx, task, in_work(tx, task.id, related), cause)
    undone = tx.outputs.remove(related, frames)
    return _restart(tx, without_outputs(task, undone), tuple(UNIT_ENDED), related, cause), undone


def _take_back(tx: Transaction, task: Task, unit_ids: Collection[str], cause: Cause) -> None:
    """Let nobody go on with what is made of something that is undone."""
    if not unit_ids:
        return
    steps = Steps(tx, [task.id]).lock(unit_ids)
    for unit_id in unit_ids:
        unit = steps.unit(unit_id)
        if unit is not None and unit.state is UnitState.RUNNING:
            steps.step_unit(replace(at_rest(unit), state=UnitState.READY), cause)
            steps.end_attempt(unit, AttemptState.CANCELLED, NO_REPORT, None, cause.at)
    steps.write()


def _reason(wanted: tuple[int, ...] | None) -> str:
    return "retry of all that failed" if wanted is None else f"retry of frames {format_frames(wanted)[:100]}"


def _units_with(tx: Transaction, task: Task, wanted: tuple[int, ...]) -> list[str]:
    """Return the ids of the ended units that have one of the wanted frames."""
    units = tx.units.with_frames(task.id, wanted)
    unknown = set(wanted).difference(*(frames for _, _, frames in units))
    if unknown:
        raise InvalidFrames(f"frames {format_frames(sorted(unknown))[:100]} are not of this task")
    return [unit_id for unit_id, state, _ in units if state in UNIT_ENDED]


def _restart(
    tx: Transaction, task: Task, states: Sequence[UnitState], unit_ids: Sequence[str] | None, cause: Cause
) -> Task:
    """Make units ready again, count them as open, and take an ended task back to the queue."""
    old = tx.tasks.get(task.id) or task
    failed = task.units_failed - tx.units.count(task.id, UnitState.FAILED, unit_ids)
    log_units(tx, replace(task, revision=task.revision + 1), states, UnitState.READY, cause, unit_ids)
    restarted = tx.units.restart(task.id, states, unit_ids)
    block_again(tx, task.id, replace(cause, reason="it waits for what is rendered again"), task.revision + 1)
    if restarted == 0 and (task.units_total > 0 or task.state not in TASK_ENDED):
        raise Conflict(f"nothing to retry: no such frame of task {task.id} has ended without a result")
    new = replace(
        task,
        units_open=task.units_open + restarted,
        units_failed=failed,
        parts_done=parts_done(tx, task.id),
        failure=task.failure if failed else None,
        finished_at=None,
    )
    if task.units_total == 0:
        tx.outbox.add(TOPIC_TASK, task.id, cause.at)
    tx.units.hold(task.id, task.state is TaskState.PAUSED)
    if task.state in TASK_ENDED:
        return move_task(tx, old, replace(new, state=TaskState.QUEUED, started_at=None), cause)
    note_task(tx, task, "task.retry", cause)
    return touch_task(tx, old, new, cause)
