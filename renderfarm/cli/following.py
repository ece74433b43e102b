"""Following a task to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from renderfarm.cli.display import Display
from renderfarm.cli.fetching import Outputs
from renderfarm.cli.still import Still
from renderfarm.client import JSON, FarmClient
from renderfarm.domain.states import TASK_ENDED, TaskState, UnitState
from renderfarm.errors import FarmUnavailable

POLL_S = 0.5
#: A farm that restarts is back by then.
PATIENCE_S = 30.0
#: Listing the outputs of a long task takes a while: no more than this share of the time goes into it.
_LISTING_SHARE = 0.1
_UNITS_SHOWN = 100


def follow_task(
    client: FarmClient, task_id: str, display: Display, outputs: Outputs, *, is_alive: Callable[[], bool] = lambda: True
) -> JSON:
    """Show a task and fetch its outputs until it has ended; return its last status.

    Args:
        client: connected to the task's farm.
        task_id: the task.
        display: shows it.
        outputs: fetches what it puts out.
        is_alive: tells whether it makes sense to wait for a farm that does not answer.

    Raises:
        FarmUnavailable: the farm stayed away for ``PATIENCE_S``.
    """
    answered_at = time.monotonic()
    look = _Look(client, task_id, display, outputs)
    while True:
        try:
            status = look()
            answered_at = time.monotonic()
            if TaskState(status["status"]) in TASK_ENDED:
                return status
        except FarmUnavailable:
            if not is_alive() or time.monotonic() - answered_at > PATIENCE_S:
                raise
        time.sleep(POLL_S)


class _Look:
    """One look at a task after the other."""

    def __init__(self, client: FarmClient, task_id: str, display: Display, outputs: Outputs) -> None:
        self._client = client
        self._task_id = task_id
        self._display = display
        self._outputs = outputs
        self._revision: int | None = None
        self._list_at = 0.0
        self._still = Still(client, task_id, display)

    def __call__(self) -> JSON:
        status = self._client.get_status(self._task_id)
        has_ended = TaskState(status["status"]) in TASK_ENDED
        if has_ended or (status["revision"] != self._revision and time.monotonic() >= self._list_at):
            self._fetch()
            self._revision = status["revision"]
        running = [] if has_ended else self._running()
        self._display.update(status, running)
        self._still.look(status, running)
        return status

    def _running(self) -> list[dict[str, Any]]:
        units: list[JSON] = self._client.list_units(
            self._task_id, status=[UnitState.RUNNING.value], limit=_UNITS_SHOWN
        )["items"]
        return units

    def _fetch(self) -> None:
        for output, path in self._outputs.fetch_new():
            self._display.frame_done(output, path)
        self._list_at = time.monotonic() + self._outputs.listing_s / _LISTING_SHARE
