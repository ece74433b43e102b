"""Reading a status once for all who ask for it at the same time."""

from __future__ import annotations

import anyio
from anyio.to_thread import run_sync

from renderfarm.auth import Principal
from renderfarm.domain.models import TaskStatus
from renderfarm.ports import Farm
from renderfarm.services import progress


class StatusReads:
    """Lets the first who asks read in a thread, and the others wait for what is then at hand.

    Without it all who poll a busy task would go to the database together each time its status grows too old.
    """

    def __init__(self) -> None:
        self._running: dict[str, anyio.Event] = {}

    async def read(self, farm: Farm, caller: Principal, task_id: str) -> TaskStatus:
        """Return a task's status. Raises NotFound, Forbidden."""
        while (running := self._running.get(task_id)) is not None:
            await running.wait()
            # Not simply what the other has read: it may be from before a change that this caller has seen.
            status = progress.status_at_hand(farm, caller, task_id)
            if status is not None:
                return status
        self._running[task_id] = done = anyio.Event()
        try:
            return await run_sync(progress.get_status, farm, caller, task_id)
        finally:
            del self._running[task_id]
            done.set()
