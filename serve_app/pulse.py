"""One look at the execution log for all who wait for it to grow, however many they are."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.to_thread import run_sync

#: How stale an event may get. A look is one indexed read.
LOOK_INTERVAL_S = 0.2


class Pulse:
    """Tells event streams and waiting requests when something may have changed."""

    def __init__(self, last_event_id: Callable[[], int], interval_s: float = LOOK_INTERVAL_S) -> None:
        self._last_event_id = last_event_id
        self._interval_s = interval_s
        self._lock = anyio.Lock()
        self._latest = 0
        self._looked_at_s = float("-inf")

    async def latest(self) -> int:
        """Return the id of the latest event, as of the last look.

        Raises:
            FarmUnavailable: the database does not answer.
        """
        async with self._lock:
            if anyio.current_time() - self._looked_at_s >= self._interval_s:
                self._latest = await run_sync(self._last_event_id)
                self._looked_at_s = anyio.current_time()
            return self._latest

    async def wait_above(self, event_id: int, timeout_s: float) -> bool:
        """Wait until there is an event later than ``event_id``; tell whether there is, or time ran out."""
        with anyio.move_on_after(timeout_s):
            while await self.latest() <= event_id:  # noqa: ASYNC110 - the database has no bell to ring
                await anyio.sleep(self._interval_s)
            return True
        return False
