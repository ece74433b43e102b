"""Attempts in the database."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from renderfarm.db.rows import changed, from_row, to_row
from renderfarm.db.tables import attempts, units
from renderfarm.domain.models import Attempt
from renderfarm.domain.states import AttemptState


class SqlAttempts:
    """Implements ``ports.Attempts``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, unit_id: str, number: int) -> Attempt | None:
        query = select(attempts).where(attempts.c.unit_id == unit_id, attempts.c.number == number)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else from_row(Attempt, row)

    def add(self, attempt: Attempt) -> None:
        self._connection.execute(insert(attempts), to_row(attempt))

    def update(self, old: Attempt, new: Attempt) -> None:
        difference = changed(old, new)
        if difference:
            where = (attempts.c.unit_id == old.unit_id, attempts.c.number == old.number)
            self._connection.execute(update(attempts).where(*where), difference)

    def cancel_running(self, task_id: str, now: float) -> None:
        of_task = select(units.c.id).where(units.c.task_id == task_id)
        statement = update(attempts).where(attempts.c.unit_id.in_(of_task), attempts.c.state == AttemptState.RUNNING)
        self._connection.execute(statement, {"state": AttemptState.CANCELLED, "finished_at": now})

    def of_unit(self, unit_id: str) -> list[Attempt]:
        query = select(attempts).where(attempts.c.unit_id == unit_id).order_by(attempts.c.number)
        return [from_row(Attempt, row) for row in self._connection.execute(query).mappings()]
