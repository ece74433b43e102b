"""Server-sent events: every committed change, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from renderfarm import ports
from renderfarm.auth import Principal
from renderfarm.domain.models import LogEntry
from renderfarm.domain.states import TASK_ENDED
from renderfarm.services import progress
from serve_app.dependencies import BIGINT_MAX, Caller, Farm
from serve_app.problems import problem_responses
from serve_app.pulse import Pulse
from serve_app.schemas.log import Event

_BATCH = 500
#: Proxies take a connection that is silent for a minute for dead.
KEEPALIVE_S = 15.0
_CONTENT = {"text/event-stream": {"schema": {"type": "string"}}}
_STREAM: dict[str, Any] = {"description": "Events; the `data` of each is an Event", "content": _CONTENT}
router = APIRouter(tags=["events"])

LastEventId = Annotated[
    int | None, Header(ge=0, le=BIGINT_MAX, description="The last event seen; the stream goes on behind it.")
]
AfterEvent = Annotated[
    int | None, Query(ge=0, le=BIGINT_MAX, description="The same, for clients that cannot set headers.")
]
#: Reads the entries behind an id, and tells whether they are the last that will come.
Read = Callable[[int], tuple[Sequence[LogEntry], bool]]


@router.get(
    "/api/events",
    summary="Follow the farm's events",
    response_class=StreamingResponse,
    responses={200: _STREAM, **problem_responses(403, 422)},
)
async def farm_events(
    request: Request, farm: Farm, caller: Caller, last_event_id: LastEventId = None, after: AfterEvent = None
) -> Response:
    """Every change of every task, from now on or behind `Last-Event-ID`. Events are hints: fetch what they name."""
    start = _first(last_event_id, after)
    if start is None:
        start = await run_sync(progress.last_event_id, farm, caller)

    def read(seen: int) -> tuple[Sequence[LogEntry], bool]:
        return progress.events_after(farm, caller, after=seen, task_id=None, limit=_BATCH), False

    return _streaming(_stream(read, request.app.state.pulse, start))


@router.get(
    "/api/tasks/{task_id}/events",
    summary="Follow a task's events",
    response_class=StreamingResponse,
    responses={
        200: _STREAM,
        204: {"description": "The task has ended and every event was seen: do not come again"},
        **problem_responses(403, 404, 422),
    },
)
async def task_events(
    request: Request,
    farm: Farm,
    caller: Caller,
    task_id: str,
    last_event_id: LastEventId = None,
    after: AfterEvent = None,
) -> Response:
    """Every change of a task from its beginning or behind `Last-Event-ID`; ends when the task has ended."""
    start = _first(last_event_id, after) or 0
    read = _task_reader(farm, caller, task_id)
    entries, ended = await run_sync(read, start)
    if ended and not entries and start:
        # The one answer on which a browser's EventSource gives up (HTML standard, 9.2.3).
        return Response(status_code=204)
    return _streaming(_stream(read, request.app.state.pulse, start))


def _streaming(events: AsyncIterator[bytes]) -> Response:
    # Proxies are asked not to hold events back: nginx listens to the second header.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


def _first(*ids: int | None) -> int | None:
    return next((event_id for event_id in ids if event_id is not None), None)


def _task_reader(farm: ports.Farm, caller: Principal, task_id: str) -> Read:
    def read(seen: int) -> tuple[Sequence[LogEntry], bool]:
        # The state first: what is logged between the two reads is then sent before the stream ends.
        ended = progress.get_status(farm, caller, task_id).status in TASK_ENDED
        entries = progress.events_after(farm, caller, after=seen, task_id=task_id, limit=_BATCH)
        return entries, ended and len(entries) < _BATCH

    return read


async def _stream(read: Read, pulse: Pulse, seen: int) -> AsyncIterator[bytes]:
    # At once, so that clients and proxies see that they are connected.
    yield KEEPALIVE_COMMENT
    while True:
        latest = await pulse.latest()
        entries, ended = await run_sync(read, seen)
        for entry in entries:
            seen = entry.id
            yield format_sse_event(data_str=Event.of(entry).model_dump_json(), event=entry.event, id=str(entry.id))
        if ended:
            return
        if len(entries) < _BATCH and not await pulse.wait_above(max(latest, seen), KEEPALIVE_S):
            yield KEEPALIVE_COMMENT
