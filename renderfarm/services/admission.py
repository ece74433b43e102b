"""From accepted to placeable: relaying the outbox, and turning what the queue delivers into units.

Everything here may happen twice without harm: a message is relayed at least once, and admitting is idempotent.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from renderfarm.domain.blender_versions import choose_blender
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.models import Asset, Task, Unit, UnitKind
from renderfarm.domain.planning import PlannedUnit, plan
from renderfarm.domain.render_settings import Device
from renderfarm.domain.states import AssetState, TaskState, UnitState
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
from renderfarm.services.journal import SCHEDULER, Cause, move_asset, move_task, touch_task
from renderfarm.services.nodes import available_blenders
from renderfarm.services.tasks import PRIORITY_MAX, TOPIC_TASK

log = logging.getLogger(__name__)

_BATCH = 200
#: People wait for an inspection, and it is short.
_INSPECT_PRIORITY = PRIORITY_MAX + 1


def relay_outbox(farm: Farm, epoch: int) -> int:
    """Publish what the outbox holds, then remove it; return how many messages that were. Raises Deposed."""
    with farm.database.read() as tx:
        messages = tx.outbox.unsent(_BATCH)
    if messages:
        farm.queue.publish([(message.topic, message.key) for message in messages])
        with farm.database.write() as tx:
            tx.leader.hold(epoch, farm.clock())
            tx.outbox.remove([message.id for message in messages])
    return len(messages)


def admit_queued(farm: Farm, epoch: int) -> int:
    """Admit what the queue delivers; return how many messages that were.

    Nothing is taken before a worker has said which Blenders it has: choosing one is part of admitting.

    Raises:
        Deposed: another scheduler has taken over.
    """
    available = available_blenders(farm)
    if not available:
        return 0
    deliveries = farm.queue.take(_BATCH)
    admitted: list[int] = []
    try:
        for delivery in deliveries:
            _admit_or_refuse(farm, epoch, delivery, available)
            admitted.append(delivery.tag)
    finally:
        farm.queue.release([delivery.tag for delivery in deliveries[len(admitted) :]])
        farm.queue.acknowledge(admitted)
    return len(deliveries)


def _admit_or_refuse(farm: Farm, epoch: int, delivery: Delivery, available: tuple[str, ...]) -> None:
    """Admit a message; one that cannot be admitted because of a mistake of ours must not hold up the others."""
    try:
        _admit(farm, epoch, delivery, available)
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


def _admit(farm: Farm, epoch: int, delivery: Delivery, available: tuple[str, ...]) -> None:
    now = farm.clock()
    with farm.database.write() as tx:
        tx.leader.hold(epoch, now)
        if delivery.topic == TOPIC_ASSET:
            asset = tx.assets.get(delivery.key)
            if asset is not None and asset.state is AssetState.PENDING and tx.units.inspection(asset.id) is None:
                _admit_asset(farm, tx, asset, available, now)
        elif delivery.topic == TOPIC_TASK:
            task = tx.tasks.lock(delivery.key)
            if task is not None and task.state in (TaskState.QUEUED, TaskState.PAUSED) and task.units_total == 0:
                _admit_task(farm, tx, task, available, now)


def _admit_asset(farm: Farm, tx: Transaction, asset: Asset, available: tuple[str, ...], now: float) -> None:
    try:
        blender = choose_blender(available, asset.file_version)
    except InvalidInput as error:
        _reject(tx, asset, FailureKind.BAD_FILE, error, now)
        return
    tx.units.add(
        [
            _unit(
                farm,
                asset,
                kind=UnitKind.INSPECT,
                task=None,
                position=0,
                planned=PlannedUnit(camera=None, folder="", frames=()),
                blender=blender,
                priority=_INSPECT_PRIORITY,
                needs_gpu=False,
                now=now,
            )
        ]
    )


def _admit_task(farm: Farm, tx: Transaction, task: Task, available: tuple[str, ...], now: float) -> None:
    asset = tx.assets.get(task.asset_id)
    if asset is None or asset.facts is None:
        raise LookupError(f"task {task.id} was accepted without inspected asset {task.asset_id}")
    try:
        planned = plan(task.settings, asset.facts)
        blender = choose_blender(available, asset.file_version, task.settings.blender)
    except InvalidInput as error:
        kind = FailureKind.MISSING_FILE if isinstance(error, MissingFiles) else FailureKind.SCRIPT_ERROR
        _refuse(tx, task, kind, error, now)
        return
    units = [
        _unit(
            farm,
            asset,
            kind=UnitKind.RENDER,
            task=task,
            position=position,
            planned=piece,
            blender=blender,
            priority=task.priority,
            needs_gpu=task.settings.device is Device.GPU,
            now=now,
        )
        for position, piece in enumerate(planned)
    ]
    tx.units.add(units, held=task.state is TaskState.PAUSED)
    new = replace(task, units_total=len(units), units_open=len(units))
    touch_task(tx, task, new, Cause(reason="planned", actor=SCHEDULER, at=now))


def _reject(tx: Transaction, asset: Asset, kind: FailureKind, error: RenderfarmError, now: float) -> None:
    failure = Failure(kind=kind, message=str(error))
    new = replace(asset, state=AssetState.REJECTED, failure=failure)
    move_asset(tx, asset, new, Cause(reason=str(error), actor=SCHEDULER, at=now))


def _refuse(tx: Transaction, task: Task, kind: FailureKind, error: RenderfarmError, now: float) -> None:
    failure = Failure(kind=kind, message=str(error))
    new = replace(task, state=TaskState.FAILED, failure=failure, finished_at=now)
    move_task(tx, task, new, Cause(reason=str(error), actor=SCHEDULER, at=now))


def _unit(
    farm: Farm,
    asset: Asset,
    *,
    kind: UnitKind,
    task: Task | None,
    position: int,
    planned: PlannedUnit,
    blender: str,
    priority: int,
    needs_gpu: bool,
    now: float,
) -> Unit:
    return Unit(
        id=farm.new_id(),
        kind=kind,
        project_id=asset.project_id,
        task_id=None if task is None else task.id,
        asset_id=asset.id,
        position=position,
        camera=planned.camera,
        folder=planned.folder,
        blender=blender,
        needs_gpu=needs_gpu,
        frames=planned.frames,
        frames_done=0,
        state=UnitState.READY,
        priority=priority,
        attempt=0,
        epoch=0,
        worker_id=None,
        lease_expires_at=None,
        not_before=0.0,
        progress=0.0,
        progress_note="",
        failed_on=(),
        failures=(),
        failure=None,
        created_at=now,
    )
