"""Following events for as long as it takes, across broken connections."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from http import HTTPStatus

import httpx2

from renderfarm.client.replies import Event
from renderfarm.client.transport import Transport
from renderfarm.errors import FarmUnavailable

#: The farm sends something every 15 s: a connection that is silent for so long is dead.
SILENCE_MAX_S = 45.0
#: A farm that is restarted comes back within this.
ABSENCE_MAX_S = 30.0
_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.2, 2.0


def follow(transport: Transport, path: str, last_event_id: int | None) -> Generator[Event]:
    """Yield events until the farm says that no more will come.

    Raises:
        NotFound: no such task.
        FarmUnavailable: the farm has been away for 30 seconds.
    """
    connection = _Connection(transport, path, last_event_id)
    while True:
        try:
            yield from connection.events()
        except FarmUnavailable:
            if connection.absence_s > ABSENCE_MAX_S:
                raise
        if connection.finished:
            return
        connection.pause()


class _Connection:
    """Where a stream stands, over all its connections."""

    def __init__(self, transport: Transport, path: str, last_event_id: int | None) -> None:
        self._transport = transport
        self._path = path
        self._last_event_id = last_event_id
        self._alive_at_s = time.monotonic()
        self._pause_s = _PAUSE_FIRST_S
        self.finished = False

    @property
    def absence_s(self) -> float:
        return time.monotonic() - self._alive_at_s

    def events(self) -> Iterator[Event]:
        """Connect once and yield what comes."""
        headers = {"Accept": "text/event-stream"}
        if self._last_event_id is not None:
            headers["Last-Event-ID"] = str(self._last_event_id)
        with self._transport.stream(self._path, headers=headers, read_timeout_s=SILENCE_MAX_S) as response:
            self._alive_at_s = time.monotonic()
            if response.status_code == HTTPStatus.NO_CONTENT:
                self.finished = True
                return
            for message in httpx2.EventSource(response):
                self._alive_at_s = time.monotonic()
                self._pause_s = _PAUSE_FIRST_S
                event = _event(message)
                self._last_event_id = event.id
                yield event

    def pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(_PAUSE_MAX_S, 2 * self._pause_s)


def _event(message: httpx2.ServerSentEvent) -> Event:
    data = json.loads(message.data)
    return Event(
        id=int(data["id"]),
        event=message.event,
        task_id=data["task_id"],
        unit_id=data["unit_id"],
        revision=data["revision"],
    )
