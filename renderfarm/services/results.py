"""The worker's side of leases: beginning, renewing, committing and failing attempts.

Every write is fenced: it takes effect only while the unit still runs this very attempt of this epoch. Whatever a worker
has to say of several attempts at once goes into one transaction.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import RULES, Failure, FailureKind, retry_delay_s
from renderfarm.domain.leases import AttemptReport, Beat, Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, OutputRole, Task, Unit, UnitKind
from renderfarm.domain.needs import after_out_of_memory
from renderfarm.domain.states import AssetState, AttemptState, TaskState, UnitState, WorkerState
from renderfarm.domain.verification import should_verify
from renderfarm.errors import LeaseLost
from renderfarm.ports import Farm, Transaction
from renderfarm.services.dependencies import inputs_of
from renderfarm.services.journal import Cause, move_asset
from renderfarm.services.steps import Steps

NO_REPORT = AttemptReport(log_digest=None, peak_memory_bytes=None)
_NOTE_LENGTH_MAX = 255
#: What shares of a frame may miss of whole frames when they are added up.
_PARTS_ERROR = 1e-6


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


@dataclass(frozen=True, kw_only=True)
class FrameCommit:
    """A frame that an attempt has rendered."""

    lease: Lease
    unit: Unit
    """As it began: what never changes while it runs."""
    frame: int
    files: tuple[RenderedFile, ...]
    render_seconds: float
    parts_seconds: float = 0.0
    """What the parts of the frame took that were merged."""
    warm: bool = False
    """It was rendered with what the session had kept of earlier frames."""
    devices: tuple[str, ...] = ()
    """What it was really rendered on."""
    report: AttemptReport = NO_REPORT
    """Counts with the unit's last frame."""


def begin(
    farm: Farm, leases: Collection[Lease], known: Mapping[str, Asset] = MappingProxyType({})
) -> dict[Lease, Assignment]:
    """Read what leases are about; those that are lost are left out.

    Args:
        known: assets, by id, that need not be read again: they never change once they are inspected.
    """
    with farm.database.read() as tx:
        units = tx.units.some([lease.unit_id for lease in leases])
        held = {lease: units[lease.unit_id] for lease in leases if holds(units.get(lease.unit_id), lease)}
        asset_ids = {unit.asset_id for unit in held.values()}
        assets = {asset_id: known.get(asset_id) or tx.assets.get(asset_id) for asset_id in asset_ids}
        tasks = tx.tasks.some({lease.task_id for lease in held if lease.task_id is not None})
        begun = [unit.id for unit in held.values() if unit.frames_done > 0]
        done = {(output.unit_id, output.frame) for output in tx.outputs.of_units(begun)}
    return {
        lease: Assignment(
            lease=lease,
            unit=unit,
            asset=_present(assets[unit.asset_id], unit),
            task=None if lease.task_id is None else tasks[lease.task_id],
            frames=tuple(frame for frame in unit.frames if (unit.id, frame) not in done),
        )
        for lease, unit in held.items()
    }


def renew(farm: Farm, beats: Sequence[Beat]) -> set[Lease]:
    """Keep leases, and say how far each frame in work is. Returns those that are lost."""
    until = farm.clock() + farm.settings.lease_s
    told = [
        replace(beat, progress=min(1.0, max(0.0, beat.progress)), note=beat.note[:_NOTE_LENGTH_MAX]) for beat in beats
    ]
    with farm.database.write() as tx:
        if tx.units.renew(told, until) == len(told):
            return set()
        units = tx.units.some([beat.lease.unit_id for beat in told])
    return {beat.lease for beat in told if not holds(units.get(beat.lease.unit_id), beat.lease)}


# --- committing ----------------------------------------------------------------------------------------------


def commit_frames(farm: Farm, commits: Sequence[FrameCommit]) -> list[list[Output] | None]:
    """Make frames part of their tasks, each once; a unit's last frame ends the unit, and maybe the task.

    Asking again after an answer that was lost changes nothing.

    Returns:
        For each commit its outputs, or None: its lease is lost and the result must be thrown away.
    """
    now = farm.clock()
    with farm.database.write() as tx:
        units = {commit.unit.id: commit.unit for commit in commits}
        steps = Steps(tx, {commit.lease.task_id for commit in commits}).confirm(units.values())
        known: dict[tuple[str, int, int], list[Output]] = {}
        # Of a unit that runs on, and has nothing yet, nothing can have been committed before.
        told_before = [unit_id for unit_id in units if (unit := steps.unit(unit_id)) is None or unit.frames_done > 0]
        for output in tx.outputs.of_units(told_before):
            known.setdefault((output.unit_id, output.attempt, output.frame), []).append(output)
        told = [_commit(farm, steps, known, _with_parts(tx, commit), now) for commit in commits]
        steps.write()
        for commit, outputs in zip(commits, told, strict=True):
            if outputs is not None and commit.unit.kind is UnitKind.MERGE:
                tx.outputs.remove(inputs_of(tx, commit.unit.task_id or "", commit.unit.id), commit.unit.frames)
    return told


def _with_parts(tx: Transaction, commit: FrameCommit) -> FrameCommit:
    """Return a commit that knows how long the parts took that it merges."""
    if commit.unit.kind is not UnitKind.MERGE:
        return commit
    parts = tx.outputs.of_units(inputs_of(tx, commit.unit.task_id or "", commit.unit.id))
    seconds = {part.unit_id: part.render_seconds for part in parts if part.frame == commit.frame}
    return replace(commit, parts_seconds=sum(seconds.values()))


def _commit(
    farm: Farm, steps: Steps, known: dict[tuple[str, int, int], list[Output]], commit: FrameCommit, now: float
) -> list[Output] | None:
    lease = commit.lease
    key = (lease.unit_id, lease.attempt, commit.frame)
    if key in known:  # the answer to the same commit was lost, and the worker asks again
        return known[key]
    unit, task = steps.unit(lease.unit_id), steps.task(lease.task_id)
    if unit is None or not holds(unit, lease):
        return None
    if task is None:
        raise LookupError(f"unit {unit.id} is no unit of a task")
    seconds = commit.render_seconds
    role = OutputRole.PICTURE if unit.part is None else OutputRole.PART
    outputs = known[key] = [
        new_output(
            farm,
            unit,
            lease,
            file,
            role,
            commit.frame,
            now,
            render_seconds=seconds + commit.parts_seconds,
            warm=commit.warm,
        )
        for file in commit.files
    ]
    what = f"frame {commit.frame}" if unit.part is None else f"a part of frame {commit.frame}"
    where = f" on {', '.join(commit.devices)}" if commit.devices else ""
    cause = Cause(reason=f"{what} in {seconds:.2f} s{where}", actor=f"worker:{lease.worker_id}", at=now)
    steps.add_outputs(outputs, _impressions(outputs, commit.files))
    steps.note_unit(unit, "frame.committed", None, ", ".join(output.name for output in outputs)[:255], cause)
    for output in outputs:
        if output.flaws:
            told = replace(cause, reason=f"frame {output.frame}: {', '.join(flaw.message for flaw in output.flaws)}")
            steps.note_unit(unit, "frame.flawed", None, output.name[:255], told)
    counted = _count(task, unit, seconds)
    if commit.warm and unit.kind is UnitKind.RENDER and unit.part is None and should_verify(counted, farm.random()):
        counted = _verify(farm, steps, counted, unit, commit.frame, cause)
    steps.set_task(counted, cause)
    steps.advance(unit, seconds)
    if unit.frames_done + 1 < len(unit.frames):
        steps.set_unit(replace(unit, frames_done=unit.frames_done + 1, progress=0.0, progress_note=""))
    else:
        succeed(steps, unit, commit.report, cause)
    return outputs


def _impressions(outputs: Sequence[Output], files: Sequence[RenderedFile]) -> dict[str, bytes]:
    pairs = zip(outputs, files, strict=True)
    return {output.id: file.glance.impression for output, file in pairs if file.glance is not None}


def _count(task: Task, unit: Unit, seconds: float) -> Task:
    """Return a task that has one frame, or a part of one, more."""
    parts = unit.share if unit.part is not None else -1.0 if unit.kind is UnitKind.MERGE else 0.0
    return replace(
        task,
        frames_done=task.frames_done + (unit.part is None),
        parts_done=_without_error(task.parts_done + parts),
        render_seconds=task.render_seconds + seconds,
    )


def _without_error(parts_done: float) -> float:
    """Return shares of frames that were added up: a seventh seven times is not quite one."""
    return parts_done if parts_done > _PARTS_ERROR else 0.0


def _verify(farm: Farm, steps: Steps, task: Task, unit: Unit, frame: int, cause: Cause) -> Task:
    """Let another worker, if there is one, render a warm frame cold; return the task with that unit."""
    fresh = replace(unit, frames=(frame,), frames_done=0, state=UnitState.READY, attempt=0, epoch=0, share=0.0)
    verification = replace(
        at_rest(fresh),
        id=farm.new_id(),
        kind=UnitKind.VERIFY,
        feeds=None,
        failed_on=() if unit.worker_id is None else (unit.worker_id,),
        failures=(),
        failure=None,
        not_before=0.0,
        created_at=cause.at,
    )
    steps.add_unit(verification, replace(cause, reason=f"is frame {frame} the same when it is rendered cold?"))
    return replace(
        task,
        units_total=task.units_total + 1,
        units_open=task.units_open + 1,
        verifications=task.verifications + 1,
    )


def commit_inspection(farm: Farm, lease: Lease, facts: SceneFacts, report: AttemptReport) -> None:
    """Make an inspection's facts the asset's. Raises LeaseLost."""
    cause = Cause(reason="inspected", actor=f"worker:{lease.worker_id}", at=farm.clock())
    with farm.database.write() as tx:
        steps = Steps(tx, []).lock([lease.unit_id])
        unit = fenced(steps.unit(lease.unit_id), lease)
        asset = _present(tx.assets.get(unit.asset_id), unit)
        succeed(steps, unit, report, cause)
        steps.write()
        move_asset(tx, asset, replace(asset, state=AssetState.READY, facts=facts), cause)


def finish(farm: Farm, lease: Lease) -> None:
    """End a unit of which every frame was committed before. Raises LeaseLost."""
    cause = Cause(reason="all its frames were there", actor=f"worker:{lease.worker_id}", at=farm.clock())
    with farm.database.write() as tx:
        steps = Steps(tx, [lease.task_id]).lock([lease.unit_id])
        succeed(steps, fenced(steps.unit(lease.unit_id), lease), NO_REPORT, cause)
        steps.write()


def succeed(steps: Steps, unit: Unit, report: AttemptReport, cause: Cause) -> None:
    """End a unit whose last frame, or inspection, is there."""
    steps.step_unit(
        replace(
            unit,
            state=UnitState.SUCCEEDED,
            failure=None,
            frames_done=len(unit.frames),
            worker_id=None,
            lease_expires_at=None,
            progress=0.0,
            progress_note="",
        ),
        cause,
    )
    steps.feed(unit, cause)
    steps.end_attempt(unit, AttemptState.SUCCEEDED, report, None, cause.at)
    task = steps.task(unit.task_id)
    if task is not None:
        _settle(steps, replace(task, units_open=task.units_open - 1), cause)


def _settle(steps: Steps, task: Task, cause: Cause) -> None:
    """Take a task's new counters; when its last unit has ended, the task has."""
    if task.units_open > 0:
        steps.set_task(task, cause)
        return
    state, reason = outcome(task)
    steps.step_task(replace(task, state=state, finished_at=cause.at), replace(cause, reason=reason))


def outcome(task: Task) -> tuple[TaskState, str]:
    """Return how a task without open units has ended, and why."""
    if task.units_failed:
        return TaskState.FAILED, f"{task.units_failed} of {task.units_total} units failed"
    if task.frames_done < task.frames_total:  # some frames of a cancelled task were taken up again, not all
        return TaskState.CANCELLED, f"{task.frames_total - task.frames_done} frames stay cancelled"
    return TaskState.COMPLETED, "all units succeeded"


# --- failing and handing back --------------------------------------------------------------------------------


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
            _settle(steps, _without_unit(left, unit, failure), cause)
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
    undone = tx.outputs.remove(part_ids, merge.frames)
    seconds = {output.unit_id: output.render_seconds for output in undone}
    left = replace(
        task,
        parts_done=_without_error(task.parts_done - 1.0),
        render_seconds=max(0.0, task.render_seconds - sum(seconds.values())),
    )
    return max((part.memory_bytes for part in parts), default=0), left


def _gone(unit: Unit) -> UnitState:
    """Return the state of a unit that is not tried again. What is no part of the picture fails no task."""
    return UnitState.CANCELLED if unit.kind is UnitKind.VERIFY else UnitState.FAILED


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


# --- what they share -----------------------------------------------------------------------------------------


def holds(unit: Unit | None, lease: Lease) -> bool:
    """Tell whether a lease is the one under which its unit runs."""
    expected = (UnitState.RUNNING, lease.attempt, lease.epoch)
    return unit is not None and (unit.state, unit.attempt, unit.epoch) == expected


def at_rest(unit: Unit) -> Unit:
    """Return a unit that nobody works on any more."""
    return replace(unit, worker_id=None, lease_expires_at=None, progress=0.0, progress_note="")


def fenced(unit: Unit | None, lease: Lease) -> Unit:
    if unit is None or not holds(unit, lease):
        raise LeaseLost(f"attempt {lease.attempt} of unit {lease.unit_id} is not the running one any more")
    return unit


def _present(asset: Asset | None, unit: Unit) -> Asset:
    if asset is None:
        raise LookupError(f"unit {unit.id} has no asset {unit.asset_id}")
    return asset


def new_output(
    farm: Farm,
    unit: Unit,
    lease: Lease,
    file: RenderedFile,
    role: OutputRole,
    frame: int,
    now: float,
    *,
    render_seconds: float = 0.0,
    warm: bool = False,
) -> Output:
    """Return a file that an attempt has made, as its task's."""
    folder = f".parts/{unit.id}" if role is OutputRole.PART else unit.folder
    return Output(
        id=farm.new_id(),
        task_id=lease.task_id or "",
        unit_id=unit.id,
        attempt=lease.attempt,
        frame=frame,
        camera=unit.camera,
        role=role,
        name=f"{folder}/{file.name}" if folder else file.name,
        digest=file.digest,
        size_bytes=file.size_bytes,
        media_type=_media_type(file.name),
        render_seconds=render_seconds,
        committed_at=now,
        published=False,
        warm=warm,
        flaws=None if file.glance is None else file.glance.flaws,
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
            tx.attempts.attach_log(unit_id, number, log_digest)
