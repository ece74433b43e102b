"""How far a task is: status, units, attempts, logs and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.domain.failures import Failure
from renderfarm.domain.models import Attempt, LogEntry, Task, Unit
from renderfarm.domain.states import TASK_ENDED, AttemptState, TaskState, UnitState
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.errors import NotFound
from renderfarm.ports import Farm, Page, Transaction
from renderfarm.services.tasks import readable_task
from renderfarm.services.unit_script import generate_script

_LOG_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """What people ask for most, and programs every second."""

    task_id: str
    status: TaskState
    progress: float
    """0 to 100, frames in work counted by their share."""
    frames_done: int
    frames_total: int
    eta_s: float | None
    """Seconds until the end at the present pace; None when there is no pace yet."""
    failure: Failure | None
    revision: int


@dataclass(frozen=True, kw_only=True)
class LogSlice:
    """A piece of Blender's output."""

    data: bytes
    attempt: int
    offset: int
    """Where ``data`` starts, in bytes."""
    next_offset: int
    complete: bool
    """The attempt has ended and ``data`` reaches its last byte."""


def get_status(farm: Farm, principal: Principal, task_id: str) -> TaskStatus:
    """Return a task's status. Raises NotFound."""
    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        running = _running_units(tx, task)
    in_work = sum(unit.progress for unit in running)
    share = min(1.0, (task.frames_done + in_work) / task.frames_total) if task.frames_total else 0.0
    return TaskStatus(
        task_id=task.id,
        status=task.state,
        progress=round(100.0 * share, 2),
        frames_done=task.frames_done,
        frames_total=task.frames_total,
        eta_s=_eta_s(task, in_work, len(running)),
        failure=task.failure,
        revision=task.revision,
    )


def _running_units(tx: Transaction, task: Task) -> tuple[Unit, ...]:
    if task.state in TASK_ENDED or task.started_at is None:
        return ()
    return tx.units.of_task(task.id, [UnitState.RUNNING]).items


def _eta_s(task: Task, in_work: float, workers: int) -> float | None:
    """Return the seconds that the frames left take at the mean of those done, on the workers that work on it now."""
    if task.state is not TaskState.RUNNING or task.frames_done == 0:
        return None
    frame_s = task.render_seconds / task.frames_done
    return round((task.frames_total - task.frames_done - in_work) * frame_s / max(1, workers), 1)


def list_units(
    farm: Farm,
    principal: Principal,
    task_id: str,
    *,
    states: Sequence[UnitState] = (),
    limit: int,
    offset: int,
) -> Page[Unit]:
    """Return units of a task in order. Raises NotFound."""
    with farm.database.read() as tx:
        readable_task(tx, principal, task_id)
        return tx.units.of_task(task_id, states, limit, offset)


def get_unit(farm: Farm, principal: Principal, task_id: str, unit_id: str) -> Unit:
    """Return one unit of a task. Raises NotFound."""
    with farm.database.read() as tx:
        return readable_unit(tx, principal, task_id, unit_id)


def readable_unit(tx: Transaction, principal: Principal, task_id: str, unit_id: str) -> Unit:
    """Return a unit of a task that ``principal`` may read. Raises NotFound, Forbidden."""
    readable_task(tx, principal, task_id)
    unit = tx.units.get(unit_id)
    if unit is None or unit.task_id != task_id:
        raise NotFound(f"task {task_id} has no unit {unit_id!r}")
    return unit


def unit_script_of(farm: Farm, principal: Principal, task_id: str, unit_id: str) -> str:
    """Return the script that renders a unit in plain Blender. Raises NotFound."""
    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        unit = readable_unit(tx, principal, task_id, unit_id)
        asset = tx.assets.get(unit.asset_id)
    if asset is None:
        raise NotFound(f"unit {unit_id} has no asset {unit.asset_id}")
    return generate_script(unit_spec(task, unit, asset))


def list_attempts(farm: Farm, principal: Principal, task_id: str, unit_id: str) -> list[Attempt]:
    """Return the attempts of a unit, oldest first. Raises NotFound."""
    with farm.database.read() as tx:
        readable_unit(tx, principal, task_id, unit_id)
        return tx.attempts.of_unit(unit_id)


def list_log(farm: Farm, principal: Principal, task_id: str, *, after: int, limit: int) -> list[LogEntry]:
    """Return a task's execution log after an entry's id, oldest first. Raises NotFound."""
    with farm.database.read() as tx:
        readable_task(tx, principal, task_id)
        return tx.log.page(task_id=task_id, after=after, limit=limit)


def events_after(farm: Farm, principal: Principal, *, after: int, task_id: str | None, limit: int) -> list[LogEntry]:
    """Return what happened after an event's id, of one task or of the whole farm. Raises NotFound."""
    with farm.database.read() as tx:
        if task_id is None:
            authorise(principal, Permission.FARM_READ)
        else:
            readable_task(tx, principal, task_id)
        return tx.log.page(task_id=task_id, after=after, limit=limit)


def last_event_id(farm: Farm, principal: Principal) -> int:
    """Return the id of the latest event of the farm."""
    authorise(principal, Permission.FARM_READ)
    with farm.database.read() as tx:
        return tx.log.last_id()


def read_unit_log(
    farm: Farm,
    principal: Principal,
    task_id: str,
    unit_id: str,
    *,
    attempt: int | None,
    offset: int,
    limit: int,
    tail: int | None,
) -> LogSlice:
    """Read Blender's output of an attempt (None: the latest), also while it runs.

    Args:
        offset: first byte wanted; a negative one is an error of the caller's.
        tail: only the last so many bytes, whatever the offset.

    Raises:
        NotFound: no such task, unit or attempt.
    """
    with farm.database.read() as tx:
        unit = readable_unit(tx, principal, task_id, unit_id)
        number = unit.attempt if attempt is None else attempt
        found = tx.attempts.get(unit_id, number)
    if found is None:
        if attempt is None:
            return LogSlice(data=b"", attempt=0, offset=0, next_offset=0, complete=False)
        raise NotFound(f"unit {unit_id} has no attempt {number}")
    limit = min(limit, _LOG_LIMIT_BYTES)
    if found.log_digest is not None:
        return _stored_slice(farm, found.log_digest, number, offset, limit, tail)
    return _live_slice(farm, found, offset, limit, tail)


def _stored_slice(farm: Farm, digest: str, number: int, offset: int, limit: int, tail: int | None) -> LogSlice:
    with farm.objects.open(digest) as stream:
        size = stream.seek(0, 2)
        start = min(size, offset if tail is None else max(0, size - tail))
        stream.seek(start)
        data = stream.read(limit)
    end = start + len(data)
    return LogSlice(data=data, attempt=number, offset=start, next_offset=end, complete=end == size)


def _live_slice(farm: Farm, attempt: Attempt, offset: int, limit: int, tail: int | None) -> LogSlice:
    ended = attempt.state is not AttemptState.RUNNING
    live = farm.compute.live_log(attempt.worker_id, attempt.unit_id, attempt.number, offset, limit, tail)
    if live is None:
        # Ended on a worker that died with its log, or about to be stored.
        return LogSlice(data=b"", attempt=attempt.number, offset=offset, next_offset=offset, complete=ended)
    start, data = live
    return LogSlice(data=data, attempt=attempt.number, offset=start, next_offset=start + len(data), complete=False)
