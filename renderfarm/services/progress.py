"""How far a task is: status, units, attempts, logs and events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.domain.models import Attempt, LogEntry, Task, TaskStatus, Unit
from renderfarm.domain.states import TASK_ENDED, AttemptState, TaskState, UnitState
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.errors import NotFound
from renderfarm.ports import Farm, InWork, Page, Transaction
from renderfarm.services.following import LATE_IDS, LATE_S, outdate_before
from renderfarm.services.tasks import readable_task
from renderfarm.services.unit_script import generate_script

_LOG_LIMIT_BYTES = 4 << 20
_NOTHING = InWork(frames=0.0, workers=0)


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
    """Return a task's status, at most ``STATUS_AGE_MAX_S`` behind the database. Raises NotFound."""
    status = farm.statuses.get(task_id)
    if status is not None:
        authorise(principal, Permission.TASK_READ, status.project_id)
        return status
    return _read_status(farm, principal, task_id)


def status_at_hand(farm: Farm, principal: Principal, task_id: str) -> TaskStatus | None:
    """Return a task's status if that takes no waiting; what ``get_status`` has just found out is at hand."""
    status = farm.statuses.at_hand(task_id)
    if status is not None:
        authorise(principal, Permission.TASK_READ, status.project_id)
    return status


def _read_status(farm: Farm, principal: Principal, task_id: str) -> TaskStatus:
    read_at = farm.statuses.now()
    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        in_work = tx.units.in_work([task_id]) if _may_be_in_work(task) else {}
    status = _status(task, in_work.get(task_id, _NOTHING))
    farm.statuses.keep([status], read_at)
    return status


def keep_statuses(farm: Farm, task_ids: Collection[str]) -> None:
    """Keep the present statuses of some tasks, as if each had been asked for."""
    if not task_ids:
        return
    read_at = farm.statuses.now()
    with farm.database.read() as tx:
        tasks = tx.tasks.some(task_ids)
        in_work = tx.units.in_work([task.id for task in tasks.values() if _may_be_in_work(task)])
    farm.statuses.keep([_status(task, in_work.get(task.id, _NOTHING)) for task in tasks.values()], read_at)


def _status(task: Task, in_work: InWork) -> TaskStatus:
    done = task.frames_done + task.parts_done + in_work.frames
    share = min(1.0, done / task.frames_total) if task.frames_total else 0.0
    return TaskStatus(
        task_id=task.id,
        project_id=task.project_id,
        status=task.state,
        progress=round(100.0 * share, 2),
        frames_done=task.frames_done,
        frames_total=task.frames_total,
        eta_s=_eta_s(task, in_work),
        failure=task.failure,
        revision=task.revision,
    )


def _may_be_in_work(task: Task) -> bool:
    return task.state not in TASK_ENDED and task.started_at is not None


def _eta_s(task: Task, in_work: InWork) -> float | None:
    """Return the seconds that the frames left take at the mean of those done, on the workers that work on it now."""
    done = task.frames_done + task.parts_done
    if task.state is not TaskState.RUNNING or done == 0:
        return None
    frame_s = task.render_seconds / done
    left = max(0.0, task.frames_total - done - in_work.frames)
    return round(left * frame_s / max(1, in_work.workers), 1)


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


def task_events(
    farm: Farm, principal: Principal, task_id: str, *, after: int, limit: int
) -> tuple[list[LogEntry], bool]:
    """Return what happened to a task after an event's id, and whether that is all that will. Raises NotFound."""
    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        entries = tx.log.page(task_id=task_id, after=after, limit=limit)
    outdate_before(farm, entries)
    return entries, task.state in TASK_ENDED and len(entries) < limit


def farm_events(farm: Farm, principal: Principal, *, after: int, limit: int) -> list[LogEntry]:
    """Return what happened on the farm after an event's id."""
    authorise(principal, Permission.FARM_READ)
    with farm.database.read() as tx:
        entries = tx.log.page(after=after, limit=limit)
    outdate_before(farm, entries)
    return entries


def late_farm_events(farm: Farm, principal: Principal, *, before: int) -> list[LogEntry]:
    """Return what happened just before an event, which may have come to light after it."""
    authorise(principal, Permission.FARM_READ)
    with farm.database.read() as tx:
        entries = tx.log.page(after=max(0, before - LATE_IDS), limit=LATE_IDS)
    before_it = [entry for entry in entries if entry.id < before]
    latest_at = max((entry.at for entry in entries if entry.id <= before), default=0.0)
    return [entry for entry in before_it if entry.at > latest_at - LATE_S]


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
