"""The scheduler's side of a lease: placing units on workers, and taking back what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from renderfarm.domain.blender_versions import choose_blender
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Attempt, Unit, Worker
from renderfarm.domain.policy import Candidate, Slot, place
from renderfarm.domain.states import AttemptState, TaskState, UnitState
from renderfarm.errors import InvalidInput
from renderfarm.ports import Farm, Transaction
from renderfarm.services.journal import SCHEDULER, Cause, move_task, move_unit, note_task
from renderfarm.services.nodes import available_blenders
from renderfarm.services.results import fail_unit

#: Ready units to look at for each free worker: enough to find one whose scene is open.
_CANDIDATES_PER_WORKER = 50


def take_leadership(farm: Farm, holder: str) -> int:
    """Become the farm's scheduler; return the epoch that fences off the one before."""
    with farm.database.write() as tx:
        # Workers of a former farm may be gone; those that live are heard of again within a second.
        tx.workers.all_gone()
        return tx.leader.take(holder, farm.clock())


def place_units(farm: Farm, epoch: int, slots: Sequence[Slot], nodes: Mapping[str, str]) -> list[Lease]:
    """Decide which ready units start where, and make each decision durable before anybody acts on it.

    Args:
        slots: every worker in service.
        nodes: the node of each worker.

    Raises:
        Deposed: another scheduler has taken over.
    """
    if not any(slot.free for slot in slots):
        return []
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        # Ray does not know every kind of GPU. Where it knows of none, any worker may try, and its session finds out.
        gpus_known = any(slot.gpus for slot in slots)
        ready = _ready_units(tx, slots, gpus_known, now)
        placements = place([_candidate(unit, gpus_known) for unit in ready.values()], slots)
        leases = [
            _lease(farm, tx, ready[placement.unit_id], placement.worker_id, nodes[placement.worker_id], epoch, now)
            for placement in placements
        ]
    return [lease for lease in leases if lease is not None]


def _ready_units(tx: Transaction, slots: Sequence[Slot], gpus_known: bool, now: float) -> dict[str, Unit]:
    """Return the first units for each kind of free worker: what none of them can take must not hide what they can."""
    kinds = Counter((slot.blenders, slot.gpus > 0 or not gpus_known) for slot in slots if slot.free)
    return {
        unit.id: unit
        for (blenders, with_gpu), free in kinds.items()
        for unit in tx.units.placeable(now, free * _CANDIDATES_PER_WORKER, blenders=blenders, with_gpu=with_gpu)
    }


def _candidate(unit: Unit, gpus_known: bool) -> Candidate:
    return Candidate(
        unit_id=unit.id,
        order=(-unit.priority, unit.task_id or "", unit.position),
        asset_id=unit.asset_id,
        blenders=frozenset({unit.blender}),
        needs_gpu=unit.needs_gpu and gpus_known,
        failed_on=frozenset(unit.failed_on),
    )


def _lease(farm: Farm, tx: Transaction, unit: Unit, worker_id: str, node: str, epoch: int, now: float) -> Lease | None:
    """Write a lease down; None if the unit has changed since it was read."""
    cause = Cause(reason=f"placed on {worker_id}", actor=SCHEDULER, at=now)
    revision = _start_task(tx, unit, cause)
    new = replace(
        unit,
        state=UnitState.RUNNING,
        attempt=unit.attempt + 1,
        epoch=epoch,
        worker_id=worker_id,
        lease_expires_at=now + farm.settings.lease_s,
        progress=0.0,
        progress_note="",
    )
    if not move_unit(tx, unit, new, cause, revision):
        return None
    tx.attempts.add(
        Attempt(
            unit_id=unit.id,
            number=new.attempt,
            epoch=epoch,
            worker_id=worker_id,
            node=node,
            blender_version=unit.blender,
            state=AttemptState.RUNNING,
            failure=None,
            log_digest=None,
            peak_memory_bytes=None,
            render_seconds=0.0,
            started_at=now,
            finished_at=None,
        )
    )
    return Lease(unit_id=unit.id, attempt=new.attempt, epoch=epoch, worker_id=worker_id)


def _start_task(tx: Transaction, unit: Unit, cause: Cause) -> int | None:
    """Let a queued task run, now that its first unit does; return the task's revision."""
    task = None if unit.task_id is None else tx.tasks.lock(unit.task_id)
    if task is None or task.state is not TaskState.QUEUED:
        return None if task is None else task.revision
    started_at = task.started_at if task.started_at is not None else cause.at
    return move_task(tx, task, replace(task, state=TaskState.RUNNING, started_at=started_at), cause).revision


def expire_leases(farm: Farm, epoch: int) -> list[Unit]:
    """Take back the units whose workers have not renewed their leases; return them."""
    now = farm.clock()
    with farm.database.read() as tx:
        late = [unit for unit in tx.units.running() if (unit.lease_expires_at or 0.0) < now]
    reason = f"its worker has not been heard of for {farm.settings.lease_s:g} s"
    return [unit for unit in late if _take_back(farm, epoch, unit, reason)]


def lose_worker(farm: Farm, epoch: int, worker_id: str, reason: str) -> list[Unit]:
    """Take back at once what a worker was doing that is known to be gone; return the units."""
    with farm.database.read() as tx:
        held = [unit for unit in tx.units.running() if unit.worker_id == worker_id]
    return [unit for unit in held if _take_back(farm, epoch, unit, reason)]


def _take_back(farm: Farm, epoch: int, seen: Unit, reason: str) -> bool:
    """Fail the attempt as lost, unless something else happened to the unit since it was seen."""
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        task = None if seen.task_id is None else tx.tasks.lock(seen.task_id)
        unit = tx.units.get(seen.id)
        if unit is None or (unit.state, unit.attempt) != (UnitState.RUNNING, seen.attempt):
            return False
        if unit.lease_expires_at != seen.lease_expires_at and (unit.lease_expires_at or 0.0) >= now:
            return False  # renewed after all
        failure = Failure(kind=FailureKind.LOST, message=f"{unit.worker_id} is lost: {reason}")
        return fail_unit(farm, tx, task, unit, failure, Cause(reason=failure.message, actor=SCHEDULER, at=now))


def lease_of(unit: Unit) -> Lease:
    """Return the lease under which a running unit runs."""
    return Lease(unit_id=unit.id, attempt=unit.attempt, epoch=unit.epoch, worker_id=unit.worker_id or "")


def record_worker(farm: Farm, worker: Worker) -> None:
    """Write down how a worker was last seen."""
    with farm.database.write() as tx:
        tx.workers.put(worker)


def repin_units(farm: Farm, epoch: int) -> None:
    """Bind ready units to a Blender that the farm has, where theirs is gone: an upgrade must not strand them.

    Units that no present Blender may render wait; the log says so once.
    """
    available = available_blenders(farm)
    with farm.database.read() as tx:
        stranded = [(version, task_id) for version, task_id in tx.units.pinned_blenders() if version not in available]
    for version, task_id in stranded:
        now = farm.clock()
        with farm.database.write() as tx:
            tx.leader.hold(epoch, now)
            _repin(tx, task_id, version, available, now)


def _repin(tx: Transaction, task_id: str, version: str, available: Sequence[str], now: float) -> None:
    task = tx.tasks.lock(task_id)
    asset = None if task is None else tx.assets.get(task.asset_id)
    if task is None or asset is None:
        raise LookupError(f"units of task {task_id} have no task or no asset")
    try:
        successor = choose_blender(available, asset.file_version, task.settings.blender)
    except InvalidInput as error:
        reason = f"waiting for Blender {version}, which no worker has: {error}"
        if not any(entry.event == "task.waiting" and entry.reason == reason for entry in tx.log.page(task_id=task_id)):
            note_task(tx, task, "task.waiting", Cause(reason=reason, actor=SCHEDULER, at=now))
        return
    tx.units.repin(task_id, version, successor)
    reason = f"no worker has Blender {version} any more; what is left renders with {successor}"
    note_task(tx, task, "task.blender", Cause(reason=reason, actor=SCHEDULER, at=now))
