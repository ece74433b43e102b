"""Short frames wait for each other, so that they are committed together."""

from __future__ import annotations

import asyncio

#: A frame waits no longer than this, and only if others are likely to come in that time: what is lost with a worker is
#: that much more. Committing frames of 0.3 s one by one took 7 % of the core that rendered them (measured).
WAIT_MAX_S = 2.0
_SHORT_S = 0.25 * WAIT_MAX_S


class Company:
    """Lets those go on together who have come within ``WAIT_MAX_S``."""

    def __init__(self) -> None:
        self._start: asyncio.Event | None = None

    async def wait(self, took_s: float, *, is_more_to_come: bool) -> bool:
        """Wait for others, if any are to be expected; else go on, with all who wait. Tell whether it is a short one.

        Args:
            took_s: how long the frame took, and the next one probably will.
            is_more_to_come: the worker has something to do when this is done.
        """
        is_short = took_s <= _SHORT_S
        if not is_short or not is_more_to_come:
            if self._start is not None:
                self._start.set()
                self._start = None
            return is_short
        if self._start is None:
            self._start = asyncio.Event()
            asyncio.get_running_loop().call_later(WAIT_MAX_S, self._go, self._start)
        await self._start.wait()
        return is_short

    def _go(self, start: asyncio.Event) -> None:
        start.set()
        if self._start is start:
            self._start = None
