"""The execution log and the outbox in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete, func, insert, literal, select

from renderfarm.db.changes import Changes
from renderfarm.db.rows import ROWS_PER_STATEMENT, from_row, insert_rows, to_row
from renderfarm.db.tables import execution_log, outbox, units
from renderfarm.db.units import units_where
from renderfarm.domain.models import LogEntry
from renderfarm.domain.states import UnitState
from renderfarm.ports import OutboxMessage

#: Every column of an entry but its id: plain numbers and text, which drivers take as they are.
_COLUMNS = tuple(column.name for column in execution_log.columns if column.name != "id")


class SqlExecutionLog:
    """Implements ``ports.ExecutionLog``."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def add(self, entries: Sequence[LogEntry]) -> None:
        for start in range(0, len(entries), ROWS_PER_STATEMENT):
            part = entries[start : start + ROWS_PER_STATEMENT]
            ids = self._insert(part)
            self._changes.add_entries([replace(entry, id=number) for entry, number in zip(part, ids, strict=True)])

    def _insert(self, entries: Sequence[LogEntry]) -> range:
        """Write entries by one statement, which is what makes their ids follow from one; return the ids."""
        rows = [{name: getattr(entry, name) for name in _COLUMNS} for entry in entries]
        result = insert_rows(self._connection, execution_log, rows)
        if self._connection.dialect.name == "sqlite":  # which tells the last id, and lets only one write at a time
            return range(result.lastrowid - len(entries) + 1, result.lastrowid + 1)
        # MySQL and MariaDB tell the first; the others of one INSERT … VALUES follow it in every auto-increment mode.
        step = self._id_step()
        return range(result.lastrowid, result.lastrowid + step * len(entries), step)

    def _id_step(self) -> int:
        """Return how far apart ids are: the servers of a replicated database share them out among themselves."""
        known = self._connection.info
        if "id_step" not in known:
            known["id_step"] = self._connection.exec_driver_sql("SELECT @@auto_increment_increment").scalar_one()
        return int(known["id_step"])

    def page(self, *, task_id: str | None = None, after: int = 0, limit: int = 1000) -> list[LogEntry]:
        query = select(execution_log).where(execution_log.c.id > after).order_by(execution_log.c.id).limit(limit)
        if task_id is not None:
            query = query.where(execution_log.c.task_id == task_id)
        return [from_row(LogEntry, row) for row in self._connection.execute(query).mappings()]

    def add_for_units(
        self, entry: LogEntry, task_id: str, states: Sequence[UnitState], unit_ids: Sequence[str] | None
    ) -> None:
        self._changes.add_revisions([entry])
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

    def ids(self, after: int) -> list[int]:
        query = select(execution_log.c.id).where(execution_log.c.id > after).order_by(execution_log.c.id)
        return list(self._connection.execute(query).scalars())

    def some(self, ids: Sequence[int]) -> list[LogEntry]:
        query = select(execution_log).where(execution_log.c.id.in_(ids)).order_by(execution_log.c.id)
        return [from_row(LogEntry, row) for row in self._connection.execute(query).mappings()]


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
