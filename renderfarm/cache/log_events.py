"""The execution log itself as the stream of events, for a farm without Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence

from renderfarm.domain.models import LogEntry
from renderfarm.ports import Database

#: A look is one indexed read.
_LOOK_EVERY_S = 0.2
_WAIT_MAX_S = 1.0


class LogEvents:
    """Implements ``ports.Events``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, entries: Sequence[LogEntry]) -> None:
        """Do nothing: what is in the log is told."""

    def end(self) -> str:
        with self._database.read() as tx:
            return str(tx.log.last_id())

    def read(self, after: str, limit: int, wait_s: float) -> tuple[list[LogEntry], str]:
        deadline = time.monotonic() + min(wait_s, _WAIT_MAX_S)
        while True:
            with self._database.read() as tx:
                entries = tx.log.page(after=int(after), limit=limit)
            left_s = deadline - time.monotonic()
            if entries or left_s <= 0:
                return entries, str(entries[-1].id) if entries else after
            time.sleep(min(left_s, _LOOK_EVERY_S))

    def check(self) -> None:
        self._database.check()

    def close(self) -> None: ...
