"""The execution log itself as the stream of events, for a farm without Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from renderfarm.domain.models import LogEntry
from renderfarm.ports import Database

#: A look is one indexed read, which is left out where nothing was committed.
_LOOK_EVERY_S = 0.2
_WAIT_MAX_S = 1.0


class LogEvents:
    """Implements ``ports.Events``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._has_news: Callable[[], bool] | None = None
        self._position = ""
        """Where the last look found nothing more."""

    def publish(self, entries: Sequence[LogEntry]) -> None:
        """Do nothing: what is in the log is told."""

    def end(self) -> str:
        with self._database.read() as tx:
            return str(tx.log.last_id())

    def read(self, after: str, limit: int, wait_s: float) -> tuple[list[LogEntry], str]:
        deadline = time.monotonic() + min(wait_s, _WAIT_MAX_S)
        while True:
            entries = self._look(after, limit)
            left_s = deadline - time.monotonic()
            if entries or left_s <= 0:
                return entries, str(entries[-1].id) if entries else after
            time.sleep(min(left_s, _LOOK_EVERY_S))

    def _look(self, after: str, limit: int) -> list[LogEntry]:
        if self._has_news is None:
            self._has_news = self._database.watch()
        # Asked first: what is committed while we read is news the next time.
        if not self._has_news() and after == self._position:
            return []
        self._position = ""
        with self._database.read() as tx:
            entries = tx.log.page(after=int(after), limit=limit)
        if not entries:
            self._position = after
        return entries

    def check(self) -> None:
        self._database.check()

    def close(self) -> None: ...
