"""Tasks: submitting, watching and steering them."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from renderfarm import ports
from renderfarm.domain import models
from renderfarm.domain.states import TaskState
from renderfarm.errors import AssetNotReady
from renderfarm.ports import TaskQuery
from renderfarm.services import progress, retries, tasks
from serve_app.dependencies import After, Caller, Farm, PageQuery
from serve_app.feed import Feed
from serve_app.problems import problem_responses
from serve_app.schemas.common import Listed, listed
from serve_app.schemas.log import Log
from serve_app.schemas.requests import RetryIn, TaskIn
from serve_app.schemas.tasks import Status, Task

#: A waiting submission looks again this often even when the log does not grow.
_LOOK_AGAIN_S = 5.0
router = APIRouter(prefix="/api/tasks", tags=["tasks"])


class TaskListQuery(PageQuery):
    """Which tasks to list."""

    status: list[TaskState] = Field(default=[], description="These states only; may be given several times.")
    text: str | None = Field(default=None, max_length=200, description="Part of the name.")
    sort: Literal["created_at", "updated_at", "priority", "name", "status"] = "created_at"
    order: Literal["asc", "desc"] = "desc"

    def to_domain(self) -> TaskQuery:
        return TaskQuery(
            states=tuple(self.status),
            text=self.text,
            sort="state" if self.sort == "status" else self.sort,
            descending=self.order == "desc",
            limit=self.limit,
            offset=self.offset,
        )


# Asked for most, by far, so it comes first: routes are tried in their order.
@router.get(
    "/{task_id}/status",
    summary="Get a task's progress",
    response_model=Status,
    responses=problem_responses(403, 404),
)
async def get_status(request: Request, task_id: str) -> Response:
    """Small and cheap: for polling."""
    # In place, without a hop to a thread; written once for all who ask at the same time; and what others are given as
    # dependencies is taken from where it is, because FastAPI takes longer to give it than all of this.
    farm: ports.Farm = request.app.state.farm
    caller = request.app.state.principal_of(request)
    status = progress.status_at_hand(farm, caller, task_id)
    if status is None:
        status = await request.app.state.status_reads.read(farm, caller, task_id)
    return Response(_status_body(status), media_type="application/json")


@lru_cache(maxsize=1000)
def _status_body(status: models.TaskStatus) -> str:
    return Status.of(status).model_dump_json()


@router.post("", status_code=201, summary="Submit a task", responses=problem_responses(403, 404, 409, 413, 422))
async def submit_task(request: Request, farm: Farm, caller: Caller, body: TaskIn) -> Task:
    """Queue a render of an asset. Waits up to two minutes while the asset is still being inspected."""
    settings = body.settings.to_domain()
    feed: Feed = request.app.state.feed
    deadline = anyio.current_time() + request.app.state.asset_wait_s

    def submit() -> models.Task:
        return tasks.submit_task(
            farm, caller, asset_id=body.asset_id, settings=settings, name=body.name, priority=body.priority
        )

    with suppress(AssetNotReady):
        return Task.of(await run_sync(submit))
    async with feed.subscribe(body.asset_id) as news:
        while True:
            try:
                return Task.of(await run_sync(submit))
            except AssetNotReady:
                left_s = deadline - anyio.current_time()
                # A client that has gone would never learn of a task queued later.
                if left_s <= 0 or await request.is_disconnected():
                    raise
                await news.next(min(left_s, _LOOK_AGAIN_S))


@router.get("", summary="List tasks", responses=problem_responses(403, 422))
def list_tasks(farm: Farm, caller: Caller, query: Annotated[TaskListQuery, Query()]) -> Listed[Task]:
    page = tasks.list_tasks(farm, caller, query.to_domain())
    return listed(page, Task.of, limit=query.limit, offset=query.offset)


@router.get("/{task_id}", summary="Get a task", responses=problem_responses(403, 404))
def get_task(farm: Farm, caller: Caller, task_id: str) -> Task:
    return Task.of(tasks.get_task(farm, caller, task_id))


@router.get("/{task_id}/log", summary="Read the execution log", responses=problem_responses(403, 404, 422))
def list_log(farm: Farm, caller: Caller, task_id: str, query: After) -> Log:
    """What changed, from what, to what, why and by whom; oldest first."""
    return Log.of(progress.list_log(farm, caller, task_id, after=query.after, limit=query.limit), query.after)


@router.post("/{task_id}/cancel", summary="Cancel a task", responses=problem_responses(403, 404, 409))
def cancel_task(farm: Farm, caller: Caller, task_id: str) -> Task:
    """End it now: renders that run are killed."""
    return Task.of(tasks.cancel_task(farm, caller, task_id))


@router.post("/{task_id}/pause", summary="Pause a task", responses=problem_responses(403, 404, 409))
def pause_task(farm: Farm, caller: Caller, task_id: str) -> Task:
    """Start no more frames; those that run finish."""
    return Task.of(tasks.pause_task(farm, caller, task_id))


@router.post("/{task_id}/resume", summary="Resume a paused task", responses=problem_responses(403, 404, 409))
def resume_task(farm: Farm, caller: Caller, task_id: str) -> Task:
    return Task.of(tasks.resume_task(farm, caller, task_id))


@router.post("/{task_id}/retry", summary="Render frames again", responses=problem_responses(403, 404, 409, 422))
def retry_task(farm: Farm, caller: Caller, task_id: str, body: RetryIn | None = None) -> Task:
    """Without frames: everything that failed or was cancelled."""
    return Task.of(retries.retry_task(farm, caller, task_id, None if body is None else body.frames))
