"""The execution log and the outbox in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, literal, select

from renderfarm.db.rows import from_row, to_row
from renderfarm.db.tables import execution_log, outbox, units
from renderfarm.db.units import units_where
from renderfarm.domain.models import LogEntry
from renderfarm.domain.states import UnitState
from renderfarm.ports import OutboxMessage


class SqlExecutionLog:
    """Implements ``ports.ExecutionLog``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, entries: Sequence[LogEntry]) -> None:
        self._connection.execute(insert(execution_log), [to_row(entry, without=frozenset({"id"})) for entry in entries])

    def page(self, *, task_id: str | None = None, after: int = 0, limit: int = 1000) -> list[LogEntry]:
        query = select(execution_log).where(execution_log.c.id > after).order_by(execution_log.c.id).limit(limit)
        if task_id is not None:
            query = query.where(execution_log.c.task_id == task_id)
        return [from_row(LogEntry, row) for row in self._connection.execute(query).mappings()]

    def add_for_units(
        self, entry: LogEntry, task_id: str, states: Sequence[UnitState], unit_ids: Sequence[str] | None
    ) -> None:
        taken = {"unit_id": units.c.id, "attempt": func.nullif(units.c.attempt, 0), "old": units.c.state}
        row = {
            name: taken.get(name, literal(value)) for name, value in to_row(entry, without=frozenset({"id"})).items()
        }
        for where in units_where(task_id, states, unit_ids):
            entries = select(*(column.label(name) for name, column in row.items())).where(*where)
            ordered = entries.order_by(units.c.position)
            self._connection.execute(insert(execution_log).from_select(list(row), ordered))

    def last_id(self) -> int:
        return int(self._connection.execute(select(func.max(execution_log.c.id))).scalar() or 0)


class SqlOutbox:
    """Implements ``ports.Outbox``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, topic: str, key: str, now: float) -> None:
        self._connection.execute(insert(outbox), {"topic": topic, "key": key, "created_at": now})

    def unsent(self, limit: int) -> list[OutboxMessage]:
        query = select(outbox).order_by(outbox.c.id).limit(limit)
        return [from_row(OutboxMessage, row) for row in self._connection.execute(query).mappings()]

    def remove(self, ids: Sequence[int]) -> None:
        self._connection.execute(delete(outbox).where(outbox.c.id.in_(ids)))
