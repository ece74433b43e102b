"""Following the farm: every committed change, told once, by whichever way it comes to light."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from renderfarm.domain.models import LogEntry
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import Farm

#: A transaction that is open for longer than this may stay untold, if the events lose it, too.
LATE_S = 10.0
#: Ids that transactions may have taken and not yet committed.
LATE_IDS = 1000
_READ_MAX = 1000
_LOOK_EVERY_S = 2.0
#: While the events are away.
_LOOK_OFTEN_S = 0.2


class Follower:
    """Hears of changes from the farm's events, and looks into the execution log for what they have lost.

    The log gives ids before the commit, so that a lower one may come to light after a higher one: each look goes back
    to what was the end of the log ``late_s`` ago, and takes what is not known yet. Not for several threads.
    """

    def __init__(
        self,
        farm: Farm,
        *,
        look_every_s: float = _LOOK_EVERY_S,
        late_s: float = LATE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._farm = farm
        self._look_every_s = look_every_s
        self._late_s = late_s
        self._clock = clock
        self._position: str | None = None
        """Where to go on in the events; None: they are away."""
        self._known: set[int] = set()
        self._missing: deque[int] = deque()
        """In the log, but not told yet."""
        self._settled = 0
        """Nothing new comes to light up to this id."""
        self._ends: deque[tuple[float, int]] = deque()
        """Where the log ended at the last looks."""
        self._look_at = 0.0

    def start(self) -> None:
        """Take everything until now as told. Raises FarmUnavailable: the database does not answer."""
        self._position = self._end()
        with self._farm.database.read() as tx:
            last = tx.log.last_id()
            self._settled = max(0, last - LATE_IDS)
            self._known = set(tx.log.ids(self._settled))
        self._ends.append((self._clock(), last))
        self._look_at = self._clock() + self._look_every_s

    def next(self, wait_s: float) -> list[LogEntry]:
        """Return changes that were not told yet; waits for the first, about ``wait_s`` at most.

        No status from before them is given any more. Raises FarmUnavailable: the database does not answer.
        """
        heard = self._listen(0.0 if self._missing else wait_s)
        if not self._missing and (self._position is None or self._clock() >= self._look_at):
            self._look(heard)
        new = {entry.id: entry for entry in (*heard, *self._found()) if entry.id not in self._known}
        self._known |= new.keys()
        entries = list(new.values())
        outdate_before(self._farm, entries)
        return entries

    def _end(self) -> str | None:
        try:
            return self._farm.events.end()
        except FarmUnavailable:
            return None

    def _listen(self, wait_s: float) -> list[LogEntry]:
        if self._position is None and (position := self._end()) is not None:
            self._position = position
            self._look_at = self._clock()  # for what was told before
            return []
        try:
            if self._position is not None:
                heard, self._position = self._farm.events.read(self._position, _READ_MAX, wait_s)
                return heard
        except FarmUnavailable:
            self._position = None
        time.sleep(min(wait_s, _LOOK_OFTEN_S))
        return []

    def _look(self, heard: Iterable[LogEntry]) -> None:
        """Find out what the log has that was not told, and forget what is older than anything to come."""
        with self._farm.database.read() as tx:
            ids = tx.log.ids(self._settled)
        told = self._known | {entry.id for entry in heard}
        self._missing.extend(number for number in ids if number not in told)
        now = self._clock()
        self._look_at = now + self._look_every_s
        self._ends.append((now, ids[-1] if ids else self._settled))
        while self._ends[0][0] <= now - self._late_s:
            self._settled = self._ends.popleft()[1]
        self._known = {number for number in self._known if number > self._settled}

    def _found(self) -> Sequence[LogEntry]:
        """Read some of what is missing; the rest has to wait for the next time."""
        if not self._missing:
            return ()
        ids = [self._missing[i] for i in range(min(_READ_MAX, len(self._missing)))]
        with self._farm.database.read() as tx:
            found = tx.log.some(ids)
        for _ in ids:
            self._missing.popleft()
        return found


def outdate_before(farm: Farm, entries: Iterable[LogEntry]) -> None:
    """Let no status be given from before these changes; whoever is told of them must not see the farm go back."""
    revisions: dict[str, int] = {}
    for entry in entries:
        if entry.task_id is not None and entry.revision is not None:
            revisions[entry.task_id] = max(entry.revision, revisions.get(entry.task_id, 0))
    farm.statuses.outdate(revisions)
