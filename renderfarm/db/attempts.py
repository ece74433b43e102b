"""Attempts in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from renderfarm.db.rows import ROWS_PER_STATEMENT, from_row, insert_rows, to_row, update_rows
from renderfarm.db.tables import attempts, units
from renderfarm.domain.models import Attempt, AttemptStep, UnitKind
from renderfarm.domain.states import AttemptState, UnitState

#: Units of an asset that are looked at for what they have needed: the latest are the most like the next.
_LATEST = 100


class SqlAttempts:
    """Implements ``ports.Attempts``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, unit_id: str, number: int) -> Attempt | None:
        query = select(attempts).where(attempts.c.unit_id == unit_id, attempts.c.number == number)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else from_row(Attempt, row)

    def add(self, new_attempts: Sequence[Attempt]) -> None:
        for start in range(0, len(new_attempts), ROWS_PER_STATEMENT):
            part = new_attempts[start : start + ROWS_PER_STATEMENT]
            insert_rows(self._connection, attempts, [to_row(attempt) for attempt in part])

    def advance(self, steps: Sequence[AttemptStep]) -> None:
        update_rows(
            self._connection,
            attempts,
            "unit_id",
            [(step.unit_id, {"number": step.number}, _columns(step)) for step in steps],
            added=frozenset({"render_seconds"}),
        )

    def attach_log(self, unit_id: str, number: int, log_digest: str | None) -> None:
        where = (attempts.c.unit_id == unit_id, attempts.c.number == number)
        self._connection.execute(update(attempts).where(*where), {"log_digest": log_digest})

    def cancel_running(self, task_id: str, now: float) -> None:
        of_task = select(units.c.id).where(units.c.task_id == task_id)
        statement = update(attempts).where(attempts.c.unit_id.in_(of_task), attempts.c.state == AttemptState.RUNNING)
        self._connection.execute(statement, {"state": AttemptState.CANCELLED, "finished_at": now})

    def of_unit(self, unit_id: str) -> list[Attempt]:
        query = select(attempts).where(attempts.c.unit_id == unit_id).order_by(attempts.c.number)
        return [from_row(Attempt, row) for row in self._connection.execute(query).mappings()]

    def peak_memory_bytes(self, asset_id: str) -> int:
        where = (
            units.c.asset_id == asset_id,
            units.c.kind == UnitKind.RENDER,
            units.c.state == UnitState.SUCCEEDED,
        )
        latest = select(units.c.id).where(*where).order_by(units.c.id.desc()).limit(_LATEST).subquery()
        query = select(func.max(attempts.c.peak_memory_bytes)).join(latest, attempts.c.unit_id == latest.c.id)
        return self._connection.execute(query).scalar() or 0


def _columns(step: AttemptStep) -> dict[str, Any]:
    columns = to_row(step, without=frozenset({"unit_id", "number"}))
    if step.state is None:
        return {"render_seconds": step.render_seconds}
    if step.log_digest is None:
        del columns["log_digest"]
    return columns
