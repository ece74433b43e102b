"""Units in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from renderfarm.db.rows import changed, from_row, to_row
from renderfarm.db.tables import units
from renderfarm.domain.models import Unit, UnitKind
from renderfarm.domain.states import UNIT_ENDED, UnitState
from renderfarm.ports import Page


class SqlUnits:
    """Implements ``ports.Units``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, unit_id: str) -> Unit | None:
        row = self._connection.execute(select(units).where(units.c.id == unit_id)).mappings().first()
        return None if row is None else from_row(Unit, row)

    def add(self, new_units: Sequence[Unit], *, held: bool = False) -> None:
        self._connection.execute(insert(units), [{**to_row(unit), "held": held} for unit in new_units])

    def update(self, old: Unit, new: Unit) -> bool:
        statement = update(units).where(
            units.c.id == old.id,
            units.c.state == old.state,
            units.c.attempt == old.attempt,
            units.c.epoch == old.epoch,
        )
        return self._connection.execute(statement, changed(old, new)).rowcount == 1

    def hold(self, task_id: str, held: bool) -> None:
        statement = update(units).where(units.c.task_id == task_id, units.c.state.not_in(UNIT_ENDED))
        self._connection.execute(statement, {"held": held})

    def cancel_open(self, task_id: str) -> list[Unit]:
        where = (units.c.task_id == task_id, units.c.state.not_in(UNIT_ENDED))
        opened = list(self._all(select(units).where(*where).order_by(units.c.position).with_for_update()))
        self._connection.execute(update(units).where(*where), {"state": UnitState.CANCELLED, "lease_expires_at": None})
        return opened

    def of_task(
        self, task_id: str, states: Sequence[UnitState] = (), limit: int = 1_000_000, offset: int = 0
    ) -> Page[Unit]:
        where = [units.c.task_id == task_id]
        if states:
            where.append(units.c.state.in_(states))
        total = self._connection.execute(select(func.count()).select_from(units).where(*where)).scalar_one()
        query = select(units).where(*where).order_by(units.c.position).limit(limit).offset(offset)
        return Page(items=self._all(query), total=total)

    def inspection(self, asset_id: str) -> Unit | None:
        query = select(units).where(units.c.asset_id == asset_id, units.c.kind == UnitKind.INSPECT)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else from_row(Unit, row)

    def placeable(self, now: float, limit: int) -> list[Unit]:
        query = (
            select(units)
            .where(units.c.state == UnitState.READY, units.c.held.is_(False), units.c.not_before <= now)
            .order_by(units.c.priority.desc(), units.c.task_id, units.c.position)
            .limit(limit)
        )
        return list(self._all(query))

    def running(self) -> list[Unit]:
        return list(self._all(select(units).where(units.c.state == UnitState.RUNNING)))

    def next_backoff(self, now: float) -> float | None:
        query = select(func.min(units.c.not_before)).where(
            units.c.state == UnitState.READY, units.c.held.is_(False), units.c.not_before > now
        )
        return self._connection.execute(query).scalar()

    def _all(self, query: Select[Any]) -> tuple[Unit, ...]:
        return tuple(from_row(Unit, row) for row in self._connection.execute(query).mappings())
