"""The worker's side of leases: beginning, renewing and committing; see ``failing`` for what goes wrong.

Every write is fenced: it takes effect only while the unit still runs this very attempt of this epoch. Whatever a worker
has to say of several attempts at once goes into one transaction.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.leases import AttemptReport, Beat, Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, OutputRole, Task, Unit, UnitKind
from renderfarm.domain.render_settings import FlawedFrames
from renderfarm.domain.states import AssetState, AttemptState, TaskState, UnitState
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
#: Of two frames nobody can tell which is the wrong one.
_FRAMES_TO_COMPARE = 3


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
    parts_seconds: tuple[float, ...] = ()
    """What each part of the frame took that was merged."""
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
    return replace(commit, parts_seconds=tuple(seconds.values()))


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
            render_seconds=seconds + sum(commit.parts_seconds),
            warm=commit.warm,
        )
        for file in commit.files
    ]
    cause = Cause(reason=_told(commit), actor=f"worker:{lease.worker_id}", at=now)
    steps.add_outputs(outputs, _impressions(outputs, commit.files))
    steps.note_unit(unit, "frame.committed", None, ", ".join(output.name for output in outputs)[:255], cause)
    for output in outputs:
        if output.flaws:
            told = replace(cause, reason=f"frame {output.frame}: {', '.join(flaw.message for flaw in output.flaws)}")
            steps.note_unit(unit, "frame.flawed", None, output.name[:255], told)
    counted = _count(task, unit, seconds)
    steps.set_task(counted if unit.part is not None else _with_checks(farm, steps, counted, unit, commit, cause), cause)
    steps.advance(unit, seconds)
    if unit.frames_done + 1 < len(unit.frames):
        steps.set_unit(replace(unit, frames_done=unit.frames_done + 1, progress=0.0, progress_note=""))
    else:
        succeed(steps, unit, commit.report, cause)
    return outputs


def _told(commit: FrameCommit) -> str:
    """Say what was rendered, and how many seconds of rendering that is: of a merged frame, its parts' too.

    Somebody who waited for it has waited less where parts were rendered side by side.
    """
    what = f"frame {commit.frame}" if commit.unit.part is None else f"a part of frame {commit.frame}"
    where = f" on {', '.join(commit.devices)}" if commit.devices else ""
    if not commit.parts_seconds:
        return f"{what} in {commit.render_seconds:.2f} s of rendering{where}"
    parts_s = sum(commit.parts_seconds)
    return (
        f"{what} in {parts_s + commit.render_seconds:.2f} s of rendering: "
        f"{len(commit.parts_seconds)} parts {parts_s:.2f} s, merged in {commit.render_seconds:.2f} s{where}"
    )


def _impressions(outputs: Sequence[Output], files: Sequence[RenderedFile]) -> dict[str, bytes]:
    pairs = zip(outputs, files, strict=True)
    return {output.id: file.glance.impression for output, file in pairs if file.glance is not None}


def _count(task: Task, unit: Unit, seconds: float) -> Task:
    """Return a task that has one frame, or a part of one, more."""
    parts = unit.share if unit.part is not None else -1.0 if unit.kind is UnitKind.MERGE else 0.0
    parts_done = task.parts_done + parts
    return replace(
        task,
        frames_done=task.frames_done + (unit.part is None),
        # A seventh seven times is not quite one.
        parts_done=parts_done if parts_done > _PARTS_ERROR else 0.0,
        render_seconds=task.render_seconds + seconds,
    )


def without_outputs(task: Task, undone: Sequence[Output]) -> Task:
    """Return a task whose counters have forgotten these outputs."""
    frames = {(output.unit_id, output.frame) for output in undone if output.role is OutputRole.PICTURE}
    seconds = {(output.unit_id, output.frame): output.render_seconds for output in undone}
    return replace(
        task,
        frames_done=task.frames_done - len(frames),
        render_seconds=max(0.0, task.render_seconds - sum(seconds.values())),
    )


def _with_checks(farm: Farm, steps: Steps, task: Task, unit: Unit, commit: FrameCommit, cause: Cause) -> Task:
    """Return a task that has one frame more, with units that make sure of what it has."""
    if commit.warm and unit.kind is UnitKind.RENDER and should_verify(task, farm.random()):
        task = _verify(farm, steps, task, unit, commit.frame, cause)
    return _judge(farm, steps, task, unit, cause) if _wants_judgement(task) else task


def _verify(farm: Farm, steps: Steps, task: Task, unit: Unit, frame: int, cause: Cause) -> Task:
    """Let another worker, if there is one, render a warm frame cold; return the task with that unit."""
    failed_on = () if unit.worker_id is None else (unit.worker_id,)
    verification = replace(_extra_unit(farm, unit, UnitKind.VERIFY, cause), frames=(frame,), failed_on=failed_on)
    steps.add_unit(verification, replace(cause, reason=f"is frame {frame} the same when it is rendered cold?"))
    return replace(_with_extra_unit(task), verifications=task.verifications + 1)


def _wants_judgement(task: Task) -> bool:
    """Tell whether the frames of a task, as it is with the one that has just come, are to be compared."""
    is_last = task.frames_done == task.frames_total
    return is_last and task.frames_total >= _FRAMES_TO_COMPARE and task.settings.flawed is FlawedFrames.RETRY


def _judge(farm: Farm, steps: Steps, task: Task, unit: Unit, cause: Cause) -> Task:
    """Let a worker look at all frames together; return the task with that unit."""
    beside = _extra_unit(farm, unit, UnitKind.JUDGE, cause)
    judgement = replace(beside, frames=(), camera=None, folder="", needs_gpu=False, memory_bytes=0)
    steps.add_unit(judgement, replace(cause, reason="is any frame unlike its neighbours?"))
    return _with_extra_unit(task)


def _extra_unit(farm: Farm, unit: Unit, kind: UnitKind, cause: Cause) -> Unit:
    """Return a new unit beside the one that is about to end."""
    return replace(
        at_rest(unit),
        id=farm.new_id(),
        kind=kind,
        feeds=None,
        share=0.0,
        frames_done=0,
        state=UnitState.READY,
        attempt=0,
        epoch=0,
        failed_on=(),
        failures=(),
        failure=None,
        not_before=0.0,
        created_at=cause.at,
    )


def _with_extra_unit(task: Task) -> Task:
    return replace(task, units_total=task.units_total + 1, units_open=task.units_open + 1)


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
        settle(steps, replace(task, units_open=task.units_open - 1), cause)


def settle(steps: Steps, task: Task, cause: Cause) -> None:
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
