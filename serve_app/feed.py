"""One reader of the farm's changes for all who wait for them, however many they are."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.to_thread import run_sync

from renderfarm.domain.models import LogEntry
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import Farm
from renderfarm.services.following import Follower

_log = logging.getLogger(__name__)

#: How long the reader may sit in one read: the end of the process waits for it.
_WAIT_S = 0.5
_TRY_AGAIN_S = 1.0
#: Whoever is further behind reads the log instead.
_WAITING_MAX = 5_000


class Subscription:
    """What one listener has not taken yet."""

    def __init__(self) -> None:
        self._entries: deque[LogEntry] = deque()
        self._news = anyio.Event()
        self.overrun = False
        """There was more than could be held for this listener, and it was thrown away."""

    def add(self, entry: LogEntry) -> None:
        """Hold a change for the listener."""
        self._entries.append(entry)
        if len(self._entries) > _WAITING_MAX:
            self._entries.clear()
            self.overrun = True
        self._news.set()

    async def next(self, timeout_s: float) -> list[LogEntry]:
        """Return what has happened, waiting for the first; nothing if time ran out, or after an overrun."""
        with anyio.move_on_after(timeout_s):
            await self._news.wait()
        self._news = anyio.Event()
        entries = list(self._entries)
        self._entries.clear()
        return entries


class Feed:
    """Reads in a thread of its own, from the first listener on until ``close``; tells listeners in their loop."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._starting = anyio.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: defaultdict[str | None, set[Subscription]] = defaultdict(set)

    @asynccontextmanager
    async def subscribe(self, topic: str | None) -> AsyncIterator[Subscription]:
        """Listen to all that happens from now on to a task or an asset (its id), or on the farm (None).

        Raises:
            FarmUnavailable: the database does not answer.
        """
        await self._ensure_started()
        subscription = Subscription()
        self._listeners[topic].add(subscription)
        try:
            yield subscription
        finally:
            self._listeners[topic].discard(subscription)
            if not self._listeners[topic]:
                del self._listeners[topic]

    async def _ensure_started(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._starting:
            if self._thread is not None and self._thread.is_alive() and self._loop is loop:
                return
            follower = Follower(self._farm)
            await run_sync(follower.start)  # first, so that nothing falls between it and the listener's own look
            self._loop, self._stop = loop, threading.Event()
            # A daemon: it must not keep the process from ending.
            self._thread = threading.Thread(
                target=self._run, args=(follower, loop, self._stop), name="feed", daemon=True
            )
            self._thread.start()

    def _run(self, follower: Follower, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        while not stop.is_set() and not loop.is_closed():
            try:
                entries = follower.next(_WAIT_S)
            except FarmUnavailable as error:
                _log.info("cannot follow the farm now: %s", error)
                stop.wait(_TRY_AGAIN_S)
                continue
            except Exception:  # noqa: BLE001 - it is logged, and what it has lost the next look finds
                _log.exception("following the farm failed")
                stop.wait(_TRY_AGAIN_S)
                continue
            if entries and not self._pass_on(entries, loop):
                return

    def _pass_on(self, entries: Sequence[LogEntry], loop: asyncio.AbstractEventLoop) -> bool:
        try:
            loop.call_soon_threadsafe(self._tell, entries)
        except RuntimeError:  # the loop was closed a moment ago
            return False
        return True

    def _tell(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            for topic in {None, entry.task_id, entry.asset_id}:
                for subscription in self._listeners.get(topic, ()):
                    subscription.add(entry)

    async def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not None:
            await run_sync(self._thread.join, 2 * _WAIT_S)
