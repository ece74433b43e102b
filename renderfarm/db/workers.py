"""Workers and the scheduler's leadership in the database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from renderfarm.db.rows import from_row, to_row
from renderfarm.db.tables import leader, workers
from renderfarm.domain.models import Worker
from renderfarm.domain.states import WorkerState
from renderfarm.errors import Deposed

_SCHEDULER = "scheduler"


class SqlWorkers:
    """Implements ``ports.Workers``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[Worker]:
        rows = self._connection.execute(select(workers).order_by(workers.c.id)).mappings()
        return [from_row(Worker, row) for row in rows]

    def put(self, some: Sequence[Worker]) -> None:
        # Every kind of database has its own upsert; rows that only the scheduler writes need none of them.
        for row in map(to_row, some):
            if self._connection.execute(update(workers).where(workers.c.id == row["id"]), row).rowcount == 0:
                self._connection.execute(insert(workers), row)

    def all_gone(self) -> None:
        self._connection.execute(update(workers), {"state": WorkerState.GONE, "unit_id": None})


class SqlLeader:
    """Implements ``ports.Leader``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, holder: str, now: float) -> int:
        query = select(leader.c.epoch).where(leader.c.name == _SCHEDULER).with_for_update()
        epoch = self._connection.execute(query).scalar()
        if epoch is None:
            self._make_row(now)
            epoch = self._connection.execute(query).scalar_one()
        row = {"epoch": int(epoch) + 1, "holder": holder, "renewed_at": now}
        self._connection.execute(update(leader).where(leader.c.name == _SCHEDULER), row)
        return int(epoch) + 1

    def _make_row(self, now: float) -> None:
        """Make the row of no leader yet. No lock keeps another from doing so at the same time, but the key does."""
        row = {"name": _SCHEDULER, "epoch": 0, "holder": "", "renewed_at": now}
        with suppress(IntegrityError), self._connection.begin_nested():
            self._connection.execute(insert(leader), row)

    def hold(self, epoch: int, now: float) -> None:
        query = select(leader.c.epoch).where(leader.c.name == _SCHEDULER).with_for_update()
        present = self._connection.execute(query).scalar()
        if present != epoch:
            raise Deposed(f"epoch {epoch} has been followed by epoch {present}")
        self._connection.execute(update(leader).where(leader.c.name == _SCHEDULER), {"renewed_at": now})
