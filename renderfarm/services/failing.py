"""The end of attempts that bring no result: failing, and handing back what was not begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from renderfarm.domain.failures import RULES, Failure, FailureKind, retry_delay_s
from renderfarm.domain.leases import AttemptReport, Lease
from renderfarm.domain.models import Task, Unit, UnitKind
from renderfarm.domain.needs import after_out_of_memory
from renderfarm.domain.states import AssetState, AttemptState, UnitState, WorkerState
from renderfarm.ports import Farm, Transaction
from renderfarm.services.dependencies import inputs_of, parts_done
from renderfarm.services.journal import Cause, move_asset
from renderfarm.services.results import NO_REPORT, at_rest, fenced, holds, settle, without_outputs
from renderfarm.services.steps import Steps


def fail(farm: Farm, lease: Lease, failure: Failure, report: AttemptReport) -> None:
    """End an attempt with a failure; the unit is retried later, or fails for good. Raises LeaseLost."""
    cause = Cause(reason=failure.message, actor=f"worker:{lease.worker_id}", at=farm.clock())
    with farm.database.write() as tx:
        steps = Steps(tx, [lease.task_id]).lock([lease.unit_id])
        fail_unit(farm, tx, steps, fenced(steps.unit(lease.unit_id), lease), failure, cause, report)


def fail_unit(
    farm: Farm,
    tx: Transaction,
    steps: Steps,
    unit: Unit,
    failure: Failure,
    cause: Cause,
    report: AttemptReport = NO_REPORT,
) -> None:
    """Apply the failure kind's rule to a running unit, and write it.

    A merge that is not tried again is none any more: its frame is rendered whole, which is the same picture.
    """
    memory_bytes = unit.memory_bytes
    if failure.kind is FailureKind.OUT_OF_MEMORY:
        present = [worker for worker in tx.workers.all() if worker.state is not WorkerState.GONE]
        memory_bytes, failure = after_out_of_memory(unit, failure, report.peak_memory_bytes, present)
    failures = (*unit.failures, failure.kind)
    delay_s = retry_delay_s(failures, farm.random())
    blamed = RULES[failure.kind].blames_worker and unit.worker_id is not None and unit.worker_id not in unit.failed_on
    becomes_whole = delay_s is None and unit.kind is UnitKind.MERGE
    task = steps.task(unit.task_id)
    new = replace(
        at_rest(unit),
        state=_gone(unit) if delay_s is None else UnitState.READY,
        not_before=0.0 if delay_s is None else cause.at + delay_s,
        failures=failures,
        failed_on=(*unit.failed_on, unit.worker_id or "") if blamed else unit.failed_on,
        failure=failure,
        memory_bytes=memory_bytes,
    )
    if becomes_whole and task is not None:
        needs_bytes, task = _without_parts(tx, task, unit)
        # A failure that is free of charge stays on it, so that its frame is not cut again.
        whole = replace(new, kind=UnitKind.RENDER, state=UnitState.READY, share=1.0, failures=(FailureKind.LOST,))
        new = replace(whole, memory_bytes=max(memory_bytes, needs_bytes))
    outlook = _outlook(delay_s, becomes_whole=becomes_whole)
    steps.step_unit(new, replace(cause, reason=f"{failure.kind}: {failure.message} ({outlook})"))
    steps.end_attempt(unit, AttemptState.FAILED, report, failure, cause.at)
    if task is not None:
        if delay_s is None and not becomes_whole:
            reason = f"what it waits for has failed: {failure.message}"
            abandoned = steps.abandon(unit, replace(cause, reason=reason))
            left = replace(task, units_open=task.units_open - abandoned)
            settle(steps, _without_unit(left, unit, failure), cause)
        else:
            steps.set_task(task, cause)
    steps.write()
    if task is None and delay_s is None:
        _reject_asset(tx, unit, failure, cause)


def _outlook(delay_s: float | None, *, becomes_whole: bool) -> str:
    if becomes_whole:
        return "the frame is rendered whole"
    return "no retry" if delay_s is None else f"retry in {delay_s:.1f} s"


def _without_parts(tx: Transaction, task: Task, merge: Unit) -> tuple[int, Task]:
    """Let a merge wait for its parts no more, and drop what they have made.

    Returns:
        The memory that rendering the parts is known to need, and the task as it is without them.
    """
    part_ids = inputs_of(tx, task.id, merge.id)
    parts = tx.units.lock_all(part_ids).values()
    tx.units.update_all([(part, replace(part, feeds=None)) for part in parts])
    left = without_outputs(task, tx.outputs.remove(part_ids, merge.frames))
    return max((part.memory_bytes for part in parts), default=0), replace(left, parts_done=parts_done(tx, task.id))


def _gone(unit: Unit) -> UnitState:
    """Return the state of a unit that is not tried again. What is no part of the picture fails no task."""
    return UnitState.CANCELLED if unit.kind in (UnitKind.VERIFY, UnitKind.JUDGE) else UnitState.FAILED


def _without_unit(task: Task, unit: Unit, failure: Failure) -> Task:
    if _gone(unit) is UnitState.CANCELLED:
        return replace(task, units_open=task.units_open - 1)
    return replace(
        task,
        units_open=task.units_open - 1,
        units_failed=task.units_failed + 1,
        failure=task.failure or _with_frames(failure, unit),
    )


def _reject_asset(tx: Transaction, unit: Unit, failure: Failure, cause: Cause) -> None:
    asset = tx.assets.get(unit.asset_id)
    if unit.kind is UnitKind.INSPECT and asset is not None:
        move_asset(tx, asset, replace(asset, state=AssetState.REJECTED, failure=failure), cause)


def _with_frames(failure: Failure, unit: Unit) -> Failure:
    frames = ", ".join(str(frame) for frame in unit.frames[:3]) + (" …" if len(unit.frames) > 3 else "")
    return replace(failure, message=f"frame {frames}: {failure.message}") if frames else failure


def hand_back(farm: Farm, leases: Sequence[Lease], reason: str) -> None:
    """Let other workers have what this one was given ahead and has not begun; it counts as no failure.

    Leases that are lost are as good as handed back.
    """
    with farm.database.write() as tx:
        steps = Steps(tx, {lease.task_id for lease in leases}).lock([lease.unit_id for lease in leases])
        for lease in leases:
            unit = steps.unit(lease.unit_id)
            if unit is not None and holds(unit, lease):
                cause = Cause(reason=reason, actor=f"worker:{lease.worker_id}", at=farm.clock())
                steps.step_unit(replace(at_rest(unit), state=UnitState.READY), cause)
                steps.end_attempt(unit, AttemptState.CANCELLED, NO_REPORT, None, cause.at)
                task = steps.task(unit.task_id)
                if task is not None:
                    steps.set_task(task, cause)
        steps.write()
