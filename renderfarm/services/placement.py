"""The scheduler's side of a lease: placing units on workers, and taking back what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from renderfarm.domain.blender_versions import choose_blender
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import RENDERING, Attempt, ReadyUnit, Unit, UnitKind, Worker
from renderfarm.domain.paces import Paces
from renderfarm.domain.policy import AHEAD_MAX_S, Candidate, Placement, Slot, chunk_s, place
from renderfarm.domain.states import AttemptState, TaskState, UnitState
from renderfarm.errors import InvalidInput
from renderfarm.ports import Farm, Transaction
from renderfarm.services.failing import fail_unit
from renderfarm.services.journal import SCHEDULER, Cause, note_task
from renderfarm.services.nodes import available_blenders
from renderfarm.services.steps import Steps

#: Ready units to look at, at first and at most, and besides for each worker that could take one: enough to find one
#: whose scene is open, and to fill workers whose units are short.
_CANDIDATES = 128
_CANDIDATES_MAX = 512
_CANDIDATES_PER_WORKER = 4


#: The Blenders of workers, whether they are to be tried where a GPU is needed, their memory.
_Kind = tuple[frozenset[str], bool, int]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A durable lease, and how long its unit will take, if that is known."""

    lease: Lease
    estimate_s: float | None


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a look at the ready units has come to."""

    placed: tuple[Placed, ...] = ()
    ahead_s: float
    """Work that a worker may have by now: nothing more is to be had for one that does not run low of that."""


def take_leadership(farm: Farm, holder: str) -> int:
    """Become the farm's scheduler; return the epoch that fences off the one before."""
    with farm.database.write() as tx:
        # Workers of a former farm may be gone; those that live are heard of again within a second.
        tx.workers.all_gone()
        return tx.leader.take(holder, farm.clock())


def place_units(
    farm: Farm,
    epoch: int,
    slots: Sequence[Slot],
    nodes: Mapping[str, str],
    paces: Paces | None = None,
    ahead_s: float = AHEAD_MAX_S,
) -> Look:
    """Decide which ready units start where, and make each decision durable before anybody acts on it.

    Args:
        slots: every worker in service.
        nodes: the node of each worker.
        paces: what is known of how long frames take.
        ahead_s: what the last look has found, if there has come nothing new since.

    Raises:
        Deposed: another scheduler has taken over.
    """
    if not any(slot.may_take(ahead_s) for slot in slots):
        return Look(ahead_s=ahead_s)
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        chosen, ahead_s = _choose(tx, slots, paces or Paces(), now)
        if not chosen:
            return Look(ahead_s=ahead_s)
        steps = Steps(tx, {unit.task_id for unit, _ in chosen})
        placed = tuple(_lease(steps, unit, placement, nodes, epoch, now) for unit, placement in chosen)
        steps.write(epoch=epoch, expires_at=now + farm.settings.lease_s)
    return Look(placed=placed, ahead_s=ahead_s)


def _choose(
    tx: Transaction, slots: Sequence[Slot], paces: Paces, now: float
) -> tuple[list[tuple[ReadyUnit, Placement]], float]:
    """Ask the policy. Few units are looked at, and more only while every one of them finds a worker.

    Returns:
        Which unit goes where, and how many seconds of work a worker may have.
    """
    # Ray does not know every kind of GPU. Where it knows of none, any worker may try, and its session finds out.
    gpus_known = any(slot.gpus for slot in slots)
    all_kinds = {_kind(slot, gpus_known) for slot in slots}
    free = Counter(_kind(slot, gpus_known) for slot in slots if slot.may_take())
    kinds = {(*kind[:2], _limit_bytes(kind, all_kinds)): workers for kind, workers in free.items()}
    limit = _CANDIDATES
    while True:
        ready = _ready_units(tx, kinds, limit, now)
        candidates = [_candidate(unit, gpus_known, paces) for unit in ready.values()]
        ahead_s = chunk_s(candidates, slots)
        placements = place(candidates, slots, ahead_s=ahead_s)
        if len(placements) < len(ready) or len(ready) < limit or limit >= _CANDIDATES_MAX:
            return [(ready[placement.unit_id], placement) for placement in placements], ahead_s
        limit = min(_CANDIDATES_MAX, limit * 8)


def _ready_units(
    tx: Transaction, kinds: Mapping[tuple[frozenset[str], bool, int | None], int], limit: int, now: float
) -> dict[str, ReadyUnit]:
    """Return the first units for each kind of free worker: what none of them can take must not hide what they can."""
    return {
        unit.id: unit
        for (blenders, with_gpu, limit_bytes), workers in kinds.items()
        for unit in tx.units.placeable(
            now,
            limit + workers * _CANDIDATES_PER_WORKER,
            blenders=blenders,
            with_gpu=with_gpu,
            memory_bytes=limit_bytes,
        )
    }


def _kind(slot: Slot, gpus_known: bool) -> _Kind:
    return slot.blenders, slot.gpus > 0 or not gpus_known, slot.memory_bytes


def _limit_bytes(kind: _Kind, kinds: Set[_Kind]) -> int | None:
    """Return the most memory that a unit may need for a kind of worker to have it.

    None: however much it needs, as there is nothing that a worker of another kind has more memory for.
    """
    blenders, has_gpu, memory_bytes = kind
    larger = [other for other in kinds if other[1] >= has_gpu and other[2] > memory_bytes]
    return memory_bytes if all(any(blender in other[0] for other in larger) for blender in blenders) else None


def _candidate(unit: ReadyUnit, gpus_known: bool, paces: Paces) -> Candidate:
    # Whole frames are what is measured.
    pace_s = None
    if unit.kind in RENDERING and not unit.is_part:
        pace_s = paces.frame_seconds(unit.task_id, unit.asset_id, is_cold=unit.kind is UnitKind.VERIFY)
    return Candidate(
        unit_id=unit.id,
        order=(-unit.priority, unit.task_id or "", unit.position),
        asset_id=unit.asset_id,
        blenders=frozenset({unit.blender}),
        needs_gpu=unit.needs_gpu and gpus_known,
        failed_on=frozenset(unit.failed_on),
        # What has failed may take any time, and others should not stand behind it.
        estimate_s=None if pace_s is None or unit.failures else pace_s * unit.frames_left,
        memory_bytes=unit.memory_bytes,
    )


def _lease(
    steps: Steps, unit: ReadyUnit, placement: Placement, nodes: Mapping[str, str], epoch: int, now: float
) -> Placed:
    worker_id, number = placement.worker_id, unit.attempt + 1
    reason = f"placed on {worker_id}"
    if placement.lacks_bytes:
        reason += f", although it may need {placement.lacks_bytes / 2**30:.1f} GiB more than any worker has"
    cause = Cause(reason=reason, actor=SCHEDULER, at=now)
    _start_task(steps, unit, cause)
    attempt = Attempt(
        unit_id=unit.id,
        number=number,
        epoch=epoch,
        worker_id=worker_id,
        node=nodes[worker_id],
        blender_version=unit.blender,
        state=AttemptState.RUNNING,
        failure=None,
        log_digest=None,
        peak_memory_bytes=None,
        render_seconds=0.0,
        started_at=now,
        finished_at=None,
    )
    steps.lease(unit, attempt, cause)
    lease = Lease(unit_id=unit.id, task_id=unit.task_id, attempt=number, epoch=epoch, worker_id=worker_id)
    return Placed(lease=lease, estimate_s=placement.estimate_s)


def _start_task(steps: Steps, unit: ReadyUnit, cause: Cause) -> None:
    """Let a queued task run, now that its first unit does."""
    task = steps.task(unit.task_id)
    if task is not None and task.state is TaskState.QUEUED:
        started_at = task.started_at if task.started_at is not None else cause.at
        steps.step_task(replace(task, state=TaskState.RUNNING, started_at=started_at), cause)


def expire_leases(farm: Farm, epoch: int) -> list[Unit]:
    """Take back the units whose workers have not renewed their leases; return them."""
    with farm.database.read() as tx:
        late = tx.units.expired(farm.clock())
    reason = f"its worker has not been heard of for {farm.settings.lease_s:g} s"
    return [unit for unit in late if take_back(farm, unit, reason, epoch)]


def lose_worker(farm: Farm, epoch: int, worker_id: str, reason: str) -> list[Unit]:
    """Take back at once what a worker was doing that is known to be gone; return the units."""
    with farm.database.read() as tx:
        held = [unit for unit in tx.units.running() if unit.worker_id == worker_id]
    return [unit for unit in held if take_back(farm, unit, reason, epoch)]


def take_back(farm: Farm, seen: Unit, reason: str, epoch: int | None = None, actor: str = SCHEDULER) -> bool:
    """Fail a running attempt as lost, unless something else happened to the unit since it was seen; tell whether.

    Args:
        epoch: the scheduler's; None for others, whom the unit's own state and attempt fence off.
    """
    now = farm.clock()
    with farm.database.write() as tx:
        if epoch is not None:
            tx.leader.hold(epoch, now)
        steps = Steps(tx, [seen.task_id]).lock([seen.id])
        unit = steps.unit(seen.id)
        if unit is None or (unit.state, unit.attempt) != (UnitState.RUNNING, seen.attempt):
            return False
        if unit.lease_expires_at != seen.lease_expires_at and (unit.lease_expires_at or 0.0) >= now:
            return False  # renewed after all
        failure = Failure(kind=FailureKind.LOST, message=f"{unit.worker_id} is lost: {reason}")
        fail_unit(farm, tx, steps, unit, failure, Cause(reason=failure.message, actor=actor, at=now))
    return True


def lease_of(unit: Unit) -> Lease:
    """Return the lease under which a running unit runs."""
    return Lease(
        unit_id=unit.id,
        task_id=unit.task_id,
        attempt=unit.attempt,
        epoch=unit.epoch,
        worker_id=unit.worker_id or "",
    )


def record_workers(farm: Farm, workers: Sequence[Worker]) -> None:
    """Write down how workers were last seen."""
    with farm.database.write() as tx:
        tx.workers.put(workers)


def raise_needs(farm: Farm, epoch: int, task_id: str, memory_bytes: int) -> None:
    """Let what is left of a task go only where there is as much memory as its attempts have turned out to need."""
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        task = tx.tasks.lock(task_id)
        if task is not None and tx.units.raise_needs(task_id, memory_bytes):
            reason = f"its frames need {memory_bytes / 2**30:.1f} GiB, which not every worker has"
            note_task(tx, task, "task.memory", Cause(reason=reason, actor=SCHEDULER, at=now))


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
