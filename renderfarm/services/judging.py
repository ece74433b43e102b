"""Frames that are unlike their neighbours, rendered once more where a task wants that.

It takes all frames of a task to tell, so a unit of its own keeps the task open: it is added with the last frame, and
again when the frames that it had rendered once more are there. Each frame is rendered again once at most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from renderfarm.domain.failures import FailureKind, is_last_try
from renderfarm.domain.flaws import FlawKind
from renderfarm.domain.frames import format_frames
from renderfarm.domain.leases import AttemptReport, Lease
from renderfarm.domain.models import Output, Task, Unit, UnitKind
from renderfarm.domain.states import UNIT_WAITING, UnitState
from renderfarm.ports import Farm, Transaction
from renderfarm.services.dependencies import with_related
from renderfarm.services.flaws import FrameFlaw, flaws_so_far
from renderfarm.services.journal import Cause
from renderfarm.services.outputs import withdraw
from renderfarm.services.results import fenced, succeed
from renderfarm.services.retries import undo_frames
from renderfarm.services.steps import Steps


def find_outliers(farm: Farm, unit: Unit) -> list[FrameFlaw]:
    """Return what is unlike its neighbours among the pictures of a unit's task."""
    with farm.database.read() as tx:
        task = tx.tasks.get(unit.task_id or "")
        if task is None:
            raise LookupError(f"unit {unit.id} is no unit of a task")
        flaws = flaws_so_far(tx, task)
    return [flaw for flaw in flaws if flaw.kind is FlawKind.OUTLIER]


def commit_judgement(farm: Farm, lease: Lease, outliers: Sequence[FrameFlaw], report: AttemptReport) -> None:
    """End a judgement. Outliers that nobody has rendered twice are rendered once more, elsewhere if that can be.

    Raises:
        LeaseLost
    """
    for output in _commit(farm, lease, outliers, report):
        withdraw(farm, output)


def _commit(farm: Farm, lease: Lease, outliers: Sequence[FrameFlaw], report: AttemptReport) -> Sequence[Output]:
    """Return the outputs that are the task's own no more."""
    with farm.database.write() as tx:
        task = tx.tasks.lock(lease.task_id or "")
        if task is None:
            raise LookupError(f"unit {lease.unit_id} is no unit of a task")
        fenced(tx.units.lock_all([lease.unit_id]).get(lease.unit_id), lease)
        doubtful = _rendered_once(tx, task, {outlier.output_id for outlier in outliers}) if outliers else []
        reason = _verdict(outliers, doubtful)
        cause = Cause(reason=reason, actor=f"worker:{lease.worker_id}", at=farm.clock())
        undone = _render_elsewhere(tx, task, doubtful, cause) if doubtful else ()
        steps = Steps(tx, [task.id]).lock([lease.unit_id])
        succeed(steps, fenced(steps.unit(lease.unit_id), lease), report, cause)
        steps.write()
    return undone


def _rendered_once(tx: Transaction, task: Task, output_ids: Collection[str]) -> list[Output]:
    """Return those of some outputs that are still there, and whose frame was not found wrong before."""
    outputs = [output for output in tx.outputs.of_task(task.id).items if output.id in output_ids]
    units = tx.units.some({output.unit_id for output in outputs})
    return [output for output in outputs if _may_be_tried_again(units[output.unit_id])]


def _may_be_tried_again(unit: Unit) -> bool:
    return unit.state is UnitState.SUCCEEDED and not is_last_try(unit.failures, FailureKind.FLAWED)


def _verdict(outliers: Sequence[FrameFlaw], doubtful: Sequence[Output]) -> str:
    if not outliers:
        return "no frame is unlike its neighbours"
    frames = format_frames(sorted({one.frame for one in doubtful or outliers}))[:100]
    told = "are rendered once more" if doubtful else "are not rendered once more"
    return f"frames that are unlike their neighbours {told}: {frames}"


def _render_elsewhere(tx: Transaction, task: Task, outputs: Sequence[Output], cause: Cause) -> Sequence[Output]:
    """Render frames again, on other workers if there are any, and remember that this was tried."""
    # Once they are to be merged again, nobody can tell any more which parts a merge was made of.
    unit_ids = with_related(tx, task.id, {output.unit_id for output in outputs})
    undone = undo_frames(tx, task, outputs, cause)
    tried = [unit for unit in tx.units.lock_all(unit_ids).values() if _is_frame(unit) and unit.state in UNIT_WAITING]
    tx.units.update_all(
        [(unit, replace(unit, failures=(FailureKind.FLAWED,), failed_on=_last_worker(tx, unit))) for unit in tried]
    )
    return undone


def _is_frame(unit: Unit) -> bool:
    return unit.kind in (UnitKind.RENDER, UnitKind.MERGE)


def _last_worker(tx: Transaction, unit: Unit) -> tuple[str, ...]:
    """Return who has rendered a unit last; merging is the same everywhere."""
    attempt = tx.attempts.get(unit.id, unit.attempt) if unit.kind is UnitKind.RENDER else None
    return () if attempt is None else (attempt.worker_id,)
