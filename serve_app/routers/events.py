"""Server-sent events: every committed change, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from renderfarm.domain.models import LogEntry
from renderfarm.services import progress
from serve_app.dependencies import BIGINT_MAX, Caller, Farm
from serve_app.feed import Feed, Subscription
from serve_app.problems import problem_responses
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
    resumed = _first(last_event_id, after)
    start = await run_sync(progress.last_event_id, farm, caller) if resumed is None else resumed
    late = await run_sync(lambda: progress.late_farm_events(farm, caller, before=start)) if resumed else []

    def read(seen: int) -> tuple[Sequence[LogEntry], bool]:
        return progress.farm_events(farm, caller, after=seen, limit=_BATCH), False

    return _streaming(_stream(request.app.state.feed, None, read, start, late))


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

    def read(seen: int) -> tuple[Sequence[LogEntry], bool]:
        return progress.task_events(farm, caller, task_id, after=seen, limit=_BATCH)

    entries, ended = await run_sync(read, start)
    if ended and not entries and start:
        # The one answer on which a browser's EventSource gives up (HTML standard, 9.2.3).
        return Response(status_code=204)
    return _streaming(_stream(request.app.state.feed, task_id, read, start))


def _streaming(events: AsyncIterator[bytes]) -> Response:
    # Proxies are asked not to hold events back: nginx listens to the second header.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


def _first(*ids: int | None) -> int | None:
    return next((event_id for event_id in ids if event_id is not None), None)


async def _stream(
    feed: Feed, topic: str | None, read: Read, seen: int, late: Sequence[LogEntry] = ()
) -> AsyncIterator[bytes]:
    """Yield what came to light late before ``seen``, what the log has behind it, and then what happens."""
    # At once, so that clients and proxies see that they are connected.
    yield KEEPALIVE_COMMENT + _events(late)
    async with feed.subscribe(topic) as news:
        while True:
            entries, ended = await run_sync(read, seen)
            seen = _last(entries, seen)
            if entries:
                yield _events(entries)
            if ended:
                return
            if len(entries) < _BATCH:
                async for live in _live(news, told={entry.id for entry in entries}):
                    seen = _last(live, seen)
                    yield _events(live) or KEEPALIVE_COMMENT


async def _live(news: Subscription, told: set[int]) -> AsyncIterator[Sequence[LogEntry]]:
    """Yield what happens, or nothing; until the log has to be asked whether there is more, or no more."""
    while True:
        entries = await news.next(KEEPALIVE_S)
        fresh = [entry for entry in entries if entry.id not in told]
        for start in range(0, len(fresh), _BATCH):
            yield fresh[start : start + _BATCH]
        if not entries and not news.overrun:
            yield ()
        if not entries or any(entry.event == "task.state" for entry in fresh):
            news.overrun = False
            return


def _last(entries: Sequence[LogEntry], seen: int) -> int:
    return max(seen, *(entry.id for entry in entries)) if entries else seen


def _events(entries: Sequence[LogEntry]) -> bytes:
    """Return events as one piece: Serve takes milliseconds of processor for each that it passes on."""
    return b"".join(
        format_sse_event(data_str=Event.of(entry).model_dump_json(), event=entry.event, id=str(entry.id))
        for entry in entries
    )
