"""Warm frames against cold ones: what a session keeps between frames must not change a pixel."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renderfarm.domain.leases import AttemptReport, Lease
from renderfarm.domain.models import Output, Task, Unit, UnitKind
from renderfarm.domain.states import AttemptState, UnitState
from renderfarm.domain.verification import TOLERANCE, in_doubt
from renderfarm.errors import BadPicture
from renderfarm.ports import Farm, Transaction
from renderfarm.services.journal import Cause, note_task, touch_task
from renderfarm.services.outputs import withdraw
from renderfarm.services.results import NO_REPORT, at_rest, fenced, succeed
from renderfarm.services.retries import undo_frames
from renderfarm.services.steps import Steps


def reference(farm: Farm, unit: Unit) -> list[Output]:
    """Return what a verification compares with: the warm outputs of its frame, none if they are not there any more."""
    with farm.database.read() as tx:
        outputs = tx.outputs.of_frame(unit.task_id or "", unit.frames[0])
    return in_doubt([output for output in outputs if output.camera == unit.camera])


def compare(farm: Farm, unit: Unit, compared: Sequence[Output], output_dir: Path, scratch: Path) -> str | None:
    """Compare a frame that was rendered cold with the committed one; return what differs, in one line.

    Args:
        output_dir: where the cold frame's files are.
        scratch: a folder to fetch the committed files into.

    Raises:
        NotFound: the object store has lost a committed file.
    """
    for output in compared:
        name = output.name.removeprefix(f"{unit.folder}/") if unit.folder else output.name
        cold, warm = output_dir / name, scratch / output.digest
        if not cold.is_file():
            return f"frame {output.frame}: rendered cold there is no {name}"
        farm.objects.fetch(output.digest, warm)
        told = _difference(warm, cold)
        warm.unlink()
        if told is not None:
            return f"frame {output.frame}: {name} is another picture when it is rendered cold: {told}"
    return None


def _difference(warm: Path, cold: Path) -> str | None:
    if filecmp.cmp(cold, warm, shallow=False):  # as mostly; but headers may differ
        return None
    from renderfarm.media.comparing import difference  # its libraries are large, and few processes compare

    try:
        found = difference(warm, cold)
    except BadPicture as error:
        return str(error)
    return str(found) if found.max_absolute > TOLERANCE else None


def commit_verification(
    farm: Farm, lease: Lease, compared: Sequence[Output], difference: str | None, report: AttemptReport
) -> None:
    """End a verification. A difference lets the task go on cold, and renders again every frame that was warm.

    Args:
        compared: the outputs that were looked at; nothing follows if one of them has been undone meanwhile.
        difference: what differs, in one line for people; None: nothing does.

    Raises:
        LeaseLost
    """
    undone = _commit(farm, lease, compared, difference, report)
    for output in undone:
        withdraw(farm, output)


def _commit(
    farm: Farm, lease: Lease, compared: Sequence[Output], difference: str | None, report: AttemptReport
) -> Sequence[Output]:
    cause = Cause(reason=_verdict(compared, difference), actor=f"worker:{lease.worker_id}", at=farm.clock())
    undone: Sequence[Output] = ()
    with farm.database.write() as tx:
        task = tx.tasks.lock(lease.task_id or "")
        if task is None:
            raise LookupError(f"unit {lease.unit_id} is no unit of a task")
        fenced(tx.units.lock_all([lease.unit_id]).get(lease.unit_id), lease)
        ids = [output.id for output in compared]
        if difference is not None and not task.cold and tx.outputs.present(ids) == set(ids):
            undone = _go_cold(tx, task, cause)
        running = [unit.id for unit in tx.units.of_task(task.id, [UnitState.RUNNING]).items] if undone else []
        steps = Steps(tx, [task.id]).lock({lease.unit_id, *running})
        for unit_id in running:
            _give_up(steps, steps.unit(unit_id), undone, cause)
        succeed(steps, fenced(steps.unit(lease.unit_id), lease), report, cause)
        steps.write()
    return undone


def _verdict(compared: Sequence[Output], difference: str | None) -> str:
    if not compared:
        return "there is nothing to verify any more"
    frame = compared[0].frame
    return f"frame {frame} is the same when it is rendered cold" if difference is None else difference


def _go_cold(tx: Transaction, task: Task, cause: Cause) -> Sequence[Output]:
    """Keep nothing between a locked task's frames from now on; return the outputs that are its own no more."""
    reason = f"{cause.reason}: from now on every frame is rendered cold, and those that were not once more"
    task = touch_task(tx, task, replace(task, cold=True), cause)
    note_task(tx, task, "task.cold", replace(cause, reason=reason))
    return undo_frames(tx, task, in_doubt(list(tx.outputs.of_task(task.id).items)), cause)


def _give_up(steps: Steps, unit: Unit | None, undone: Sequence[Output], cause: Cause) -> None:
    """Take a unit back from its worker, which renders it warm."""
    if unit is None or unit.kind is not UnitKind.RENDER:
        return
    frames = {output.frame for output in undone if output.unit_id == unit.id}
    new = replace(at_rest(unit), state=UnitState.READY, frames_done=unit.frames_done - len(frames))
    steps.step_unit(new, cause)
    steps.end_attempt(unit, AttemptState.CANCELLED, NO_REPORT, None, cause.at)
