"""The worker's side of a lease: beginning, renewing, committing and failing an attempt.

Every write is fenced: it takes effect only while the unit still runs this very attempt of this epoch.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, replace

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import RULES, Failure, retry_delay_s
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, Task, Unit, UnitKind
from renderfarm.domain.states import AssetState, AttemptState, TaskState, UnitState
from renderfarm.errors import LeaseLost
from renderfarm.ports import Farm, Transaction
from renderfarm.services.journal import Cause, move_asset, move_task, move_unit, touch_task, unit_entry

_NO_REPORT = AttemptReport(log_digest=None, peak_memory_bytes=None)
_NOTE_LENGTH_MAX = 255


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a worker needs to know for an attempt."""

    lease: Lease
    unit: Unit
    asset: Asset
    task: Task | None
    """None for an inspection."""
    frames: tuple[int, ...]
    """Frames of the unit that no earlier attempt has committed."""


def begin(farm: Farm, lease: Lease) -> Assignment:
    """Read what a lease is about. Raises LeaseLost."""
    with farm.database.read() as tx:
        unit = _fenced(tx.units.get(lease.unit_id), lease)
        asset = tx.assets.get(unit.asset_id)
        task = None if unit.task_id is None else tx.tasks.get(unit.task_id)
        done = {output.frame for output in tx.outputs.of_unit(unit.id)}
    if asset is None:
        raise LookupError(f"unit {unit.id} has no asset {unit.asset_id}")
    frames = tuple(frame for frame in unit.frames if frame not in done)
    return Assignment(lease=lease, unit=unit, asset=asset, task=task, frames=frames)


def renew(farm: Farm, lease: Lease, progress: float, note: str) -> None:
    """Keep a lease, and say how far the frame in work is. Raises LeaseLost."""
    with farm.database.write() as tx:
        unit = _fenced(tx.units.get(lease.unit_id), lease)
        new = replace(
            unit,
            lease_expires_at=farm.clock() + farm.settings.lease_s,
            progress=min(1.0, max(0.0, progress)),
            progress_note=note[:_NOTE_LENGTH_MAX],
        )
        _write(tx, unit, new)


def commit_frame(
    farm: Farm,
    lease: Lease,
    frame: int,
    files: Sequence[RenderedFile],
    render_seconds: float,
    report: AttemptReport = _NO_REPORT,
) -> list[Output]:
    """Make a frame's files part of the task, once; the unit's last frame ends the unit, and maybe the task.

    Asking again after an answer that was lost changes nothing.

    Raises:
        LeaseLost: the attempt is not the unit's any more; the result must be thrown away.
    """
    now = farm.clock()
    actor = f"worker:{lease.worker_id}"
    with farm.database.write() as tx:
        task, unit = _locked(tx, lease)
        if task is None:
            raise LookupError(f"unit {unit.id} is no unit of a task")
        before = [output for output in tx.outputs.of_unit(unit.id) if output.frame == frame]
        if before:  # the answer to the same commit was lost, and the worker asks again
            return before
        outputs = [_output(farm, unit, task, lease, frame, file, render_seconds, now) for file in files]
        cause = Cause(reason=f"frame {frame} in {render_seconds:.2f} s", actor=actor, at=now)
        task = touch_task(
            tx,
            task,
            replace(task, frames_done=task.frames_done + 1, render_seconds=task.render_seconds + render_seconds),
            cause,
        )
        done = replace(unit, frames_done=unit.frames_done + 1, progress=0.0, progress_note="")
        tx.outputs.add(outputs)
        names = ", ".join(output.name for output in outputs)
        tx.log.add([unit_entry(cause, "frame.committed", None, names[:255], unit, task.revision)])
        _count_render_seconds(tx, lease, render_seconds)
        if done.frames_done < len(unit.frames):
            _write(tx, unit, done)
        else:
            _succeed(tx, task, unit, done, report, cause)
    return outputs


def commit_inspection(farm: Farm, lease: Lease, facts: SceneFacts, report: AttemptReport) -> None:
    """Make an inspection's facts the asset's. Raises LeaseLost."""
    cause = Cause(reason="inspected", actor=f"worker:{lease.worker_id}", at=farm.clock())
    with farm.database.write() as tx:
        _, unit = _locked(tx, lease)
        asset = tx.assets.get(unit.asset_id)
        if asset is None:
            raise LookupError(f"unit {unit.id} has no asset {unit.asset_id}")
        _succeed(tx, None, unit, unit, report, cause)
        move_asset(tx, asset, replace(asset, state=AssetState.READY, facts=facts), cause)


def fail(farm: Farm, lease: Lease, failure: Failure, report: AttemptReport) -> None:
    """End an attempt with a failure; the unit is retried later, or fails for good. Raises LeaseLost."""
    cause = Cause(reason=failure.message, actor=f"worker:{lease.worker_id}", at=farm.clock())
    with farm.database.write() as tx:
        task, unit = _locked(tx, lease)
        fail_unit(farm, tx, task, unit, failure, cause, report)


def fail_unit(
    farm: Farm,
    tx: Transaction,
    task: Task | None,
    unit: Unit,
    failure: Failure,
    cause: Cause,
    report: AttemptReport = _NO_REPORT,
) -> bool:
    """Apply the failure kind's rule to a running unit; tell whether the unit was still as given."""
    failures = (*unit.failures, failure.kind)
    delay_s = retry_delay_s(failures, farm.random())
    blamed = RULES[failure.kind].blames_worker and unit.worker_id is not None and unit.worker_id not in unit.failed_on
    new = replace(
        unit,
        state=UnitState.FAILED if delay_s is None else UnitState.READY,
        worker_id=None,
        lease_expires_at=None,
        not_before=0.0 if delay_s is None else cause.at + delay_s,
        progress=0.0,
        progress_note="",
        failures=failures,
        failed_on=(*unit.failed_on, unit.worker_id or "") if blamed else unit.failed_on,
        failure=failure,
    )
    outlook = "no retry" if delay_s is None else f"retry in {delay_s:.1f} s"
    told = replace(cause, reason=f"{failure.kind}: {failure.message} ({outlook})")
    if not move_unit(tx, unit, new, told, None if task is None else task.revision + 1):
        return False
    _end_attempt(tx, unit, AttemptState.FAILED, cause.at, report, failure)
    if delay_s is None:
        _fail_owner(tx, task, unit, failure, cause)
    elif task is not None:
        touch_task(tx, task, task, cause)
    return True


def _fail_owner(tx: Transaction, task: Task | None, unit: Unit, failure: Failure, cause: Cause) -> None:
    """Tell the task, or the asset under inspection, that a unit has failed for good."""
    if task is not None:
        counted = replace(
            task,
            units_open=task.units_open - 1,
            units_failed=task.units_failed + 1,
            failure=task.failure or _with_frames(failure, unit),
        )
        _settle(tx, task, counted, cause)
        return
    asset = tx.assets.get(unit.asset_id)
    if unit.kind is UnitKind.INSPECT and asset is not None:
        move_asset(tx, asset, replace(asset, state=AssetState.REJECTED, failure=failure), cause)


def _with_frames(failure: Failure, unit: Unit) -> Failure:
    frames = ", ".join(str(frame) for frame in unit.frames[:3]) + (" …" if len(unit.frames) > 3 else "")
    return replace(failure, message=f"frame {frames}: {failure.message}")


def _succeed(tx: Transaction, task: Task | None, old: Unit, new: Unit, report: AttemptReport, cause: Cause) -> None:
    ended = replace(new, state=UnitState.SUCCEEDED, worker_id=None, lease_expires_at=None, failure=None)
    if not move_unit(tx, old, ended, cause, None if task is None else task.revision + 1):
        raise LeaseLost(f"unit {old.id} has moved on from attempt {old.attempt}")
    _end_attempt(tx, old, AttemptState.SUCCEEDED, cause.at, report, None)
    if task is not None:
        _settle(tx, task, replace(task, units_open=task.units_open - 1), cause)


def _settle(tx: Transaction, old: Task, new: Task, cause: Cause) -> None:
    """Write a task's counters; when its last unit has ended, the task has."""
    if new.units_open > 0:
        touch_task(tx, old, new, cause)
        return
    state, reason = _end(new)
    move_task(tx, old, replace(new, state=state, finished_at=cause.at), replace(cause, reason=reason))


def _end(task: Task) -> tuple[TaskState, str]:
    """Return how a task without open units has ended, and why."""
    if task.units_failed:
        return TaskState.FAILED, f"{task.units_failed} of {task.units_total} units failed"
    if task.frames_done < task.frames_total:  # some frames of a cancelled task were taken up again, not all
        return TaskState.CANCELLED, f"{task.frames_total - task.frames_done} frames stay cancelled"
    return TaskState.COMPLETED, "all units succeeded"


def _locked(tx: Transaction, lease: Lease) -> tuple[Task | None, Unit]:
    """Return the unit of a lease with its task, the task locked first. Raises LeaseLost."""
    unit = _fenced(tx.units.get(lease.unit_id), lease)
    if unit.task_id is None:
        return None, unit
    task = tx.tasks.lock(unit.task_id)
    return task, _fenced(tx.units.get(lease.unit_id), lease)


def _fenced(unit: Unit | None, lease: Lease) -> Unit:
    if unit is None or (unit.state, unit.attempt, unit.epoch) != (UnitState.RUNNING, lease.attempt, lease.epoch):
        raise LeaseLost(f"attempt {lease.attempt} of unit {lease.unit_id} is not the running one any more")
    return unit


def _write(tx: Transaction, old: Unit, new: Unit) -> None:
    if not tx.units.update(old, new):
        raise LeaseLost(f"unit {old.id} has moved on from attempt {old.attempt}")


def _end_attempt(
    tx: Transaction, unit: Unit, state: AttemptState, now: float, report: AttemptReport, failure: Failure | None
) -> None:
    attempt = tx.attempts.get(unit.id, unit.attempt)
    if attempt is None:
        raise LookupError(f"unit {unit.id} has no attempt {unit.attempt}")
    ended = replace(
        attempt,
        state=state,
        failure=failure,
        log_digest=report.log_digest or attempt.log_digest,
        peak_memory_bytes=report.peak_memory_bytes,
        finished_at=now,
    )
    tx.attempts.update(attempt, ended)


def _count_render_seconds(tx: Transaction, lease: Lease, render_seconds: float) -> None:
    attempt = tx.attempts.get(lease.unit_id, lease.attempt)
    if attempt is not None:
        tx.attempts.update(attempt, replace(attempt, render_seconds=attempt.render_seconds + render_seconds))


def _output(
    farm: Farm,
    unit: Unit,
    task: Task,
    lease: Lease,
    frame: int,
    file: RenderedFile,
    render_seconds: float,
    now: float,
) -> Output:
    name = f"{unit.folder}/{file.name}" if unit.folder else file.name
    return Output(
        id=farm.new_id(),
        task_id=task.id,
        unit_id=unit.id,
        attempt=lease.attempt,
        frame=frame,
        camera=unit.camera,
        name=name,
        digest=file.digest,
        size_bytes=file.size_bytes,
        media_type=_media_type(file.name),
        render_seconds=render_seconds,
        committed_at=now,
        published=False,
    )


def _media_type(name: str) -> str:
    if name.lower().endswith(".exr"):
        return "image/x-exr"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def attach_log(farm: Farm, unit_id: str, number: int, log_digest: str) -> None:
    """Keep Blender's output of an attempt whose worker died before it could."""
    with farm.database.write() as tx:
        attempt = tx.attempts.get(unit_id, number)
        if attempt is not None and attempt.log_digest is None:
            tx.attempts.update(attempt, replace(attempt, log_digest=log_digest))
