"""The status cache and the event stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from renderfarm.domain.models import LogEntry, TaskStatus

#: A cached status is never older than this behind the database.
STATUS_AGE_MAX_S = 2.0


class Statuses(Protocol):
    """What people ask for most, kept so that the database need not be asked. May forget everything at any moment.

    No method raises while the cache does not answer: it is as if nothing were kept. ``check`` tells.
    """

    def get(self, task_id: str) -> TaskStatus | None:
        """Return a kept status that is at most ``STATUS_AGE_MAX_S`` behind the database; None: ask the database."""

    def at_hand(self, task_id: str) -> TaskStatus | None:
        """Return the same as ``get``, if that takes no waiting for anything outside of this process."""

    def now(self) -> float:
        """Return the time in seconds by a clock of this process that nobody sets, for ``keep``."""

    def keep(self, statuses: Sequence[TaskStatus], read_at: float) -> None:
        """Keep what was read from the database in a transaction that began at ``read_at`` (by ``now``).

        An older revision never takes the place of a newer one, nor of one that was outdated; among equal ones the
        later read counts. What was read too long ago, or not yet, is not kept.
        """

    def outdate(self, revisions: Mapping[str, int]) -> None:
        """Give no status below these revisions any more: the tasks have changed."""

    def kept(self, task_ids: Collection[str]) -> dict[str, int]:
        """Return the revision of every status that is kept for these tasks, however old; for checks.

        What was outdated is not kept any more: a revision below the database's is a cache that was not told.
        """

    def check(self) -> None:
        """Raise FarmUnavailable unless the cache answers."""

    def close(self) -> None: ...


class Events(Protocol):
    """Tells processes what others have committed, in any order. What it loses, readers find in the execution log."""

    def publish(self, entries: Sequence[LogEntry]) -> None:
        """Tell of committed entries of the execution log. Does not raise while nobody can be told."""

    def end(self) -> str:
        """Return the position behind the latest event. Raises FarmUnavailable."""

    def read(self, after: str, limit: int, wait_s: float) -> tuple[list[LogEntry], str]:
        """Return events behind a position and the position behind those; waits for the first, a second at most.

        Raises:
            FarmUnavailable: it does not answer.
        """

    def check(self) -> None:
        """Raise FarmUnavailable unless events get through."""

    def close(self) -> None: ...
