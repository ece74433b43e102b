"""Tasks: submitting them, reading them, and steering them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.domain.blender_versions import choose_blender
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.models import Asset, Task
from renderfarm.domain.planning import pictures, plan
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.splitting import cut_frames
from renderfarm.domain.states import UNIT_OPEN, AssetState, TaskState, UnitState, check_step
from renderfarm.errors import AssetNotReady, InvalidAsset, InvalidInput, NotFound
from renderfarm.ports import Farm, Page, TaskQuery, Transaction
from renderfarm.services.assets import get_asset
from renderfarm.services.journal import Cause, log_units, move_task, note_task
from renderfarm.services.nodes import available_blenders
from renderfarm.services.projects import DEFAULT_PROJECT
from renderfarm.services.repeating import repeated, repeated_if_undone

TOPIC_TASK = "task"
PRIORITY_MIN, PRIORITY_MAX = 0, 100


def submit_task(
    farm: Farm, principal: Principal, *, asset_id: str, settings: RenderSettings, name: str | None, priority: int
) -> Task:
    """Accept a task: once this returns, it is never lost.

    Raises:
        AssetNotReady: the asset is still being inspected.
        InvalidInput: the scene cannot satisfy the settings, or the asset was rejected.
    """
    task = _new_task(farm, principal, asset_id=asset_id, settings=settings, name=name, priority=priority)
    _accept(farm, task, Cause(reason="submitted", actor=principal.actor, at=task.created_at))
    farm.compute.wake()
    return task


@repeated_if_undone
def _new_task(
    farm: Farm, principal: Principal, *, asset_id: str, settings: RenderSettings, name: str | None, priority: int
) -> Task:
    """Return the task to write down, if it may be and can be."""
    asset = get_asset(farm, principal, asset_id)
    authorise(principal, Permission.TASK_CREATE, asset.project_id)
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise InvalidInput(f"the priority must be between {PRIORITY_MIN} and {PRIORITY_MAX}, not {priority}")
    facts = _inspected_facts(asset)
    # How it is cut without anybody asking is decided when it is known who is idle.
    frames_total = pictures(plan(settings, facts, cut_frames(settings, facts, idle_workers=0, threads=1.0).parts))
    available = available_blenders(farm)
    if available:
        choose_blender(available, asset.file_version, settings.blender)
    now = farm.clock()
    return Task(
        id=farm.new_id(),
        project_id=asset.project_id,
        owner=principal.name,
        name=(name or asset.name)[:200],
        asset_id=asset.id,
        settings=settings,
        priority=priority,
        state=TaskState.QUEUED,
        revision=1,
        units_total=0,
        units_open=0,
        units_failed=0,
        frames_total=frames_total,
        frames_done=0,
        parts_done=0.0,
        render_seconds=0.0,
        cold=False,
        verifications=0,
        failure=None,
        created_at=now,
        started_at=None,
        finished_at=None,
        updated_at=now,
    )


@repeated
def _accept(farm: Farm, task: Task, cause: Cause) -> None:
    """Write a new task down, once, also when the answer to a commit was lost on its way."""
    with farm.database.write() as tx:
        # The lock also waits for a commit that is still under way.
        if tx.tasks.lock(task.id) is None:
            tx.tasks.add(task)
            note_task(tx, task, "task.submitted", cause)
            tx.outbox.add(TOPIC_TASK, task.id, cause.at)


def _inspected_facts(asset: Asset) -> SceneFacts:
    if asset.state is AssetState.PENDING:
        raise AssetNotReady(f"asset {asset.id} is still being inspected")
    if asset.facts is None:
        why = asset.failure.message if asset.failure else "unknown reason"
        raise InvalidAsset(f"asset {asset.name!r} was rejected: {why}")
    return asset.facts


def get_task(farm: Farm, principal: Principal, task_id: str) -> Task:
    """Return one task. Raises NotFound."""
    with farm.database.read() as tx:
        return readable_task(tx, principal, task_id)


def readable_task(tx: Transaction, principal: Principal, task_id: str) -> Task:
    """Return a task that ``principal`` may read. Raises NotFound, Forbidden."""
    task = tx.tasks.get(task_id)
    if task is None:
        raise NotFound(f"no task {task_id!r}")
    authorise(principal, Permission.TASK_READ, task.project_id)
    return task


def list_tasks(farm: Farm, principal: Principal, query: TaskQuery) -> Page[Task]:
    """Return the tasks that a query asks for."""
    project_id = query.project_id or DEFAULT_PROJECT
    authorise(principal, Permission.TASK_READ, project_id)
    with farm.database.read() as tx:
        return tx.tasks.page(replace(query, project_id=project_id))


def cancel_task(farm: Farm, principal: Principal, task_id: str) -> Task:
    """End a task now; renders that run are killed. Raises NotFound, IllegalTransition."""

    def cancel(tx: Transaction, task: Task, cause: Cause) -> Task:
        new = replace(task, state=TaskState.CANCELLED, units_open=0, finished_at=cause.at)
        moved = move_task(tx, task, new, cause)
        log_units(tx, moved, UNIT_OPEN, UnitState.CANCELLED, cause)
        tx.attempts.cancel_running(task.id, cause.at)
        tx.units.cancel_open(task.id)
        return moved

    return _steer(farm, principal, task_id, "cancelled by request", cancel)


def pause_task(farm: Farm, principal: Principal, task_id: str) -> Task:
    """Start nothing more of a task; frames that run finish. Raises NotFound, IllegalTransition."""

    def pause(tx: Transaction, task: Task, cause: Cause) -> Task:
        tx.units.hold(task.id, True)
        return move_task(tx, task, replace(task, state=TaskState.PAUSED), cause)

    return _steer(farm, principal, task_id, "paused by request", pause)


def resume_task(farm: Farm, principal: Principal, task_id: str) -> Task:
    """Go on with a paused task. Raises NotFound, IllegalTransition."""

    def resume(tx: Transaction, task: Task, cause: Cause) -> Task:
        check_step(
            task.state, TaskState.RUNNING
        )  # what has ended before it began may become queued, but by a retry only
        state = TaskState.QUEUED if task.started_at is None else TaskState.RUNNING
        moved = move_task(tx, task, replace(task, state=state), cause)
        tx.units.hold(task.id, False)
        return moved

    return _steer(farm, principal, task_id, "resumed by request", resume)


@repeated_if_undone
def _steer(
    farm: Farm,
    principal: Principal,
    task_id: str,
    reason: str,
    change: Callable[[Transaction, Task, Cause], Task],
) -> Task:
    """Apply a person's change to a locked task, and wake the scheduler."""
    with farm.database.write() as tx:
        task = lock_task(tx, principal, task_id)
        moved = change(tx, task, Cause(reason=reason, actor=principal.actor, at=farm.clock()))
    farm.compute.wake()
    return moved


def lock_task(tx: Transaction, principal: Principal, task_id: str) -> Task:
    """Return a task that ``principal`` may steer, locked. Raises NotFound, Forbidden."""
    task = tx.tasks.lock(task_id)
    if task is None:
        raise NotFound(f"no task {task_id!r}")
    authorise(principal, Permission.TASK_CONTROL, task.project_id)
    return task
