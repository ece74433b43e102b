"""From accepted to placeable: relaying the outbox, and turning what the queue delivers into units.

Everything here may happen twice without harm: a message is relayed at least once, and admitting is idempotent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from renderfarm.domain.blender_versions import choose_blender
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.models import Asset, Task, Unit, UnitKind, Worker
from renderfarm.domain.needs import needs_gpu
from renderfarm.domain.planning import PlannedUnit, plan
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.splitting import Cut, cut_frames
from renderfarm.domain.states import AssetState, TaskState, WorkerState
from renderfarm.errors import (
    Deposed,
    FarmUnavailable,
    InternalError,
    InvalidInput,
    MissingFiles,
    RenderfarmError,
    StorageFull,
)
from renderfarm.ports import Delivery, Farm, Transaction
from renderfarm.services.assets import TOPIC_ASSET
from renderfarm.services.journal import SCHEDULER, Cause, move_asset, move_task, note_task, touch_task
from renderfarm.services.new_units import new_unit
from renderfarm.services.nodes import available_blenders
from renderfarm.services.tasks import PRIORITY_MAX, TOPIC_TASK

log = logging.getLogger(__name__)

_BATCH = 200
#: A transaction that makes more units ends: it keeps others waiting.
_UNITS_AT_ONCE = 20_000
#: How long relaying or admitting goes on, however much there is.
_TURN_S = 0.5
_TOPICS = frozenset({TOPIC_ASSET, TOPIC_TASK})
#: People wait for an inspection, and it is short.
_INSPECT_PRIORITY = PRIORITY_MAX + 1


def relay_outbox(farm: Farm, epoch: int) -> int:
    """Publish what the outbox holds, then remove it; return how many messages that were.

    Ends after half a second, so that others have their turn. Raises Deposed.
    """
    relayed = 0
    until = time.monotonic() + _TURN_S
    while time.monotonic() < until:
        with farm.database.read() as tx:
            messages = tx.outbox.unsent(_BATCH)
        if messages:
            farm.queue.publish([(message.topic, message.key) for message in messages])
            with farm.database.write() as tx:
                tx.leader.hold(epoch, farm.clock())
                tx.outbox.remove([message.id for message in messages])
        relayed += len(messages)
        if len(messages) < _BATCH:
            break
    return relayed


def admit_queued(farm: Farm, epoch: int) -> int:
    """Admit what the queue delivers; return how many messages that were.

    Nothing is taken before a worker has said which Blenders it has: choosing one is part of admitting. Ends after
    half a second, as relaying does.

    Raises:
        Deposed: another scheduler has taken over.
    """
    available = available_blenders(farm)
    admitted = 0
    until = time.monotonic() + _TURN_S
    while available and time.monotonic() < until:
        deliveries = farm.queue.take(_BATCH)
        if not deliveries:
            break
        _admit_taken(farm, epoch, deliveries, available)
        admitted += len(deliveries)
    return admitted


def admit_unsent(farm: Farm, epoch: int) -> int:
    """Admit straight from the outbox what the queue does not take for now; return how many messages that were.

    The queue levels the load and keeps dead letters; nobody has to wait for it. What it has taken after all comes a
    second time, which is no harm.

    Raises:
        Deposed: another scheduler has taken over.
    """
    available = available_blenders(farm)
    if not available:
        return 0
    with farm.database.read() as tx:
        messages = [message for message in tx.outbox.unsent(_BATCH) if message.topic in _TOPICS]
    left = [Delivery(tag=message.id, topic=message.topic, key=message.key) for message in messages]
    while left:
        done = _admit_some(farm, epoch, left, available)
        with farm.database.write() as tx:
            tx.leader.hold(epoch, farm.clock())
            tx.outbox.remove([delivery.tag for delivery in left[:done]])
        left = left[done:]
    return len(messages)


def _admit_taken(farm: Farm, epoch: int, deliveries: Sequence[Delivery], available: tuple[str, ...]) -> None:
    """Admit deliveries in as few transactions as can be, each acknowledged after its own."""
    left = list(deliveries)
    try:
        for delivery in deliveries:
            if delivery.topic not in _TOPICS:
                farm.queue.bury([delivery.tag], f"no such topic: {delivery.topic}")
                left.remove(delivery)
        while left:
            done = _admit_some(farm, epoch, left, available)
            farm.queue.acknowledge([delivery.tag for delivery in left[:done]])
            left = left[done:]
    finally:
        farm.queue.release([delivery.tag for delivery in left])


def _admit_some(farm: Farm, epoch: int, deliveries: Sequence[Delivery], available: tuple[str, ...]) -> int:
    """Admit the first of these together, or each alone if one of them cannot be; return how many."""
    try:
        return _admit(farm, epoch, deliveries, available)
    except (Deposed, FarmUnavailable, StorageFull):
        raise
    except Exception as error:  # noqa: BLE001  told again, by whichever of them it comes from
        log.debug("%s messages are admitted one by one: %s", len(deliveries), error)
        for delivery in deliveries:
            _admit_or_refuse(farm, epoch, delivery, available)
        return len(deliveries)


def _admit_or_refuse(farm: Farm, epoch: int, delivery: Delivery, available: tuple[str, ...]) -> None:
    """Admit a message; one that cannot be admitted because of a mistake of ours must not hold up the others."""
    try:
        _admit(farm, epoch, [delivery], available)
    except (Deposed, FarmUnavailable, StorageFull):
        raise
    except Exception as error:
        log.exception("%s %s cannot be admitted", delivery.topic, delivery.key)
        _give_up(farm, epoch, delivery, InternalError(f"internal error: {type(error).__name__}: {error}"))


def _give_up(farm: Farm, epoch: int, delivery: Delivery, error: InternalError) -> None:
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        if delivery.topic == TOPIC_ASSET:
            asset = tx.assets.get(delivery.key)
            if asset is not None and asset.state is AssetState.PENDING:
                _reject(tx, asset, FailureKind.CRASH, error, now)
        elif delivery.topic == TOPIC_TASK:
            task = tx.tasks.lock(delivery.key)
            if task is not None and task.state in (TaskState.QUEUED, TaskState.PAUSED):
                _refuse(tx, task, FailureKind.CRASH, error, now)


def _admit(farm: Farm, epoch: int, deliveries: Sequence[Delivery], available: tuple[str, ...]) -> int:
    """Admit the first of these deliveries in one transaction of a bounded size; return how many."""
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        work = _Admissions(farm, tx, available, now)
        task_keys = {delivery.key for delivery in deliveries if delivery.topic == TOPIC_TASK}
        tasks = tx.tasks.lock_all(task_keys) if task_keys else {}
        done = 0
        for delivery in deliveries:
            if delivery.topic == TOPIC_ASSET:
                work.admit_asset(delivery.key)
            elif (task := tasks.pop(delivery.key, None)) is not None:
                work.admit_task(task)
            done += 1
            if work.units_count >= _UNITS_AT_ONCE:
                break
        work.write_units()
    return done


class _Admissions:
    """What one transaction admits. Reads each asset once, and writes all units at its end."""

    def __init__(self, farm: Farm, tx: Transaction, available: tuple[str, ...], now: float) -> None:
        self._farm = farm
        self._tx = tx
        self._available = available
        self._now = now
        self._assets: dict[str, Asset | None] = {}
        self._peaks: dict[str, int] = {}
        """What earlier attempts have needed, by asset."""
        self._units: dict[bool, list[Unit]] = {False: [], True: []}
        """Held back or not."""
        self._inspected: set[str] = set()
        self._workers: list[Worker] | None = None
        self._busy: set[str] = set()

    @property
    def units_count(self) -> int:
        return sum(map(len, self._units.values()))

    def write_units(self) -> None:
        for held, units in self._units.items():
            if units:
                self._tx.units.add(units, held=held)

    def admit_asset(self, asset_id: str) -> None:
        """Let an asset be inspected, unless somebody has seen to that."""
        asset = self._tx.assets.get(asset_id)
        if asset is None or asset.state is not AssetState.PENDING or asset.id in self._inspected:
            return
        if self._tx.units.inspection(asset.id) is not None:
            return
        try:
            blender = choose_blender(self._available, asset.file_version)
        except InvalidInput as error:
            _reject(self._tx, asset, FailureKind.BAD_FILE, error, self._now)
            return
        self._inspected.add(asset.id)
        self._units[False].append(
            new_unit(
                asset,
                unit_id=self._farm.new_id(),
                task=None,
                position=0,
                planned=PlannedUnit(kind=UnitKind.INSPECT),
                blender=blender,
                priority=_INSPECT_PRIORITY,
                now=self._now,
            )
        )

    def admit_task(self, task: Task) -> None:
        """Plan a locked task, unless that has been done."""
        if task.state not in (TaskState.QUEUED, TaskState.PAUSED) or task.units_total:
            return
        asset = self._asset(task.asset_id)
        if asset is None or asset.facts is None:
            raise LookupError(f"task {task.id} was accepted without inspected asset {task.asset_id}")
        try:
            blender = choose_blender(self._available, asset.file_version, task.settings.blender)
            cut = self._cut(task.settings, asset.facts, blender)
            planned = plan(task.settings, asset.facts, cut.parts)
        except InvalidInput as error:
            kind = FailureKind.MISSING_FILE if isinstance(error, MissingFiles) else FailureKind.SCRIPT_ERROR
            _refuse(self._tx, task, kind, error, self._now)
            return
        ids = [self._farm.new_id() for _ in planned]
        self._units[task.state is TaskState.PAUSED] += [
            new_unit(
                asset,
                unit_id=ids[position],
                task=task,
                position=position,
                planned=piece,
                feeds=None if piece.feeds is None else ids[piece.feeds],
                blender=blender,
                priority=task.priority,
                peak_memory_bytes=self._peak_memory_bytes(asset.id),
                now=self._now,
            )
            for position, piece in enumerate(planned)
        ]
        new = replace(task, units_total=len(planned), units_open=len(planned))
        cause = Cause(reason="planned", actor=SCHEDULER, at=self._now)
        task = touch_task(self._tx, task, new, cause)
        if cut.reason:
            note_task(self._tx, task, "task.split", replace(cause, reason=cut.reason))

    def _cut(self, settings: RenderSettings, facts: SceneFacts, blender: str) -> Cut:
        """Decide how frames are cut, by what the workers that can render them do, as far as the database knows."""
        if self._workers is None:
            self._workers = [worker for worker in self._tx.workers.all() if worker.state is not WorkerState.GONE]
            self._busy = {lease.worker_id for lease in self._tx.units.leases()}
        able = [worker for worker in self._workers if blender in worker.blender_versions]
        if needs_gpu(settings, facts.scene(settings.scene)) and any(worker.gpus for worker in self._workers):
            able = [worker for worker in able if worker.gpus]
        idle = [worker for worker in able if worker.id not in self._busy and worker.set_aside_until is None]
        threads = fmean(worker.threads for worker in able) if able else 1.0
        return cut_frames(settings, facts, idle_workers=len(idle), threads=max(1.0, threads))

    def _peak_memory_bytes(self, asset_id: str) -> int:
        if asset_id not in self._peaks:
            self._peaks[asset_id] = self._tx.attempts.peak_memory_bytes(asset_id)
        return self._peaks[asset_id]

    def _asset(self, asset_id: str) -> Asset | None:
        """An inspected asset changes no more."""
        if asset_id not in self._assets:
            self._assets[asset_id] = self._tx.assets.get(asset_id)
        return self._assets[asset_id]


def _reject(tx: Transaction, asset: Asset, kind: FailureKind, error: RenderfarmError, now: float) -> None:
    failure = Failure(kind=kind, message=str(error))
    new = replace(asset, state=AssetState.REJECTED, failure=failure)
    move_asset(tx, asset, new, Cause(reason=str(error), actor=SCHEDULER, at=now))


def _refuse(tx: Transaction, task: Task, kind: FailureKind, error: RenderfarmError, now: float) -> None:
    failure = Failure(kind=kind, message=str(error))
    new = replace(task, state=TaskState.FAILED, failure=failure, finished_at=now)
    move_task(tx, task, new, Cause(reason=str(error), actor=SCHEDULER, at=now))
