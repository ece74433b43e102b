"""Units in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, insert, select, update

from renderfarm.db.rows import batched_ids, changed, from_row, to_row
from renderfarm.db.tables import outputs, units
from renderfarm.domain.frames import parse_frames
from renderfarm.domain.models import Unit, UnitKind
from renderfarm.domain.states import UNIT_ENDED, UnitState
from renderfarm.ports import Page

#: Columns of a unit that nobody works on.
_AT_REST: dict[str, Any] = {"worker_id": None, "lease_expires_at": None, "progress": 0.0, "progress_note": ""}


class SqlUnits:
    """Implements ``ports.Units``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, unit_id: str) -> Unit | None:
        row = self._connection.execute(select(units).where(units.c.id == unit_id)).mappings().first()
        return None if row is None else from_row(Unit, row)

    def add(self, new_units: Sequence[Unit], *, held: bool = False) -> None:
        self._connection.execute(
            insert(units), [{**to_row(unit), "held": held, "rank": -unit.priority} for unit in new_units]
        )

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

    def cancel_open(self, task_id: str) -> None:
        where = (units.c.task_id == task_id, units.c.state.not_in(UNIT_ENDED))
        self._connection.execute(update(units).where(*where), {"state": UnitState.CANCELLED, **_AT_REST})

    def restart(self, task_id: str, states: Sequence[UnitState], unit_ids: Sequence[str] | None = None) -> int:
        done = select(func.count(outputs.c.frame.distinct())).where(outputs.c.unit_id == units.c.id).scalar_subquery()
        fresh = {"state": UnitState.READY, "not_before": 0.0, "failed_on": [], "failures": [], "failure": None}
        restarted = 0
        for where in units_where(task_id, states, unit_ids):
            statement = update(units).where(*where).values(frames_done=done, **fresh, **_AT_REST)
            restarted += self._connection.execute(statement).rowcount
        return restarted

    def with_frames(self, task_id: str, frames: Collection[int]) -> list[tuple[str, UnitState, tuple[int, ...]]]:
        query = select(units.c.id, units.c.state, units.c.frames).where(units.c.task_id == task_id)
        rows = ((row.id, UnitState(row.state), parse_frames(row.frames)) for row in self._connection.execute(query))
        wanted = frozenset(frames)
        return [row for row in rows if not wanted.isdisjoint(row[2])]

    def count(self, task_id: str, state: UnitState, unit_ids: Sequence[str] | None = None) -> int:
        return sum(
            self._connection.execute(select(func.count()).select_from(units).where(*where)).scalar_one()
            for where in units_where(task_id, [state], unit_ids)
        )

    def pinned_blenders(self) -> list[tuple[str, str]]:
        where = (units.c.state == UnitState.READY, units.c.task_id.is_not(None))
        rows = self._connection.execute(select(units.c.blender, units.c.task_id).where(*where).distinct())
        return [(row.blender, row.task_id) for row in rows]

    def repin(self, task_id: str, old: str, new: str) -> None:
        where = (units.c.task_id == task_id, units.c.state == UnitState.READY, units.c.blender == old)
        self._connection.execute(update(units).where(*where), {"blender": new})

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

    def placeable(self, now: float, limit: int, *, blenders: Collection[str], with_gpu: bool) -> list[Unit]:
        # The sum keeps planners from the index on not_before, by which they would read and sort every ready unit.
        waited = units.c.not_before + 0.0 <= now
        where = [units.c.state == UnitState.READY, units.c.held.is_(False), waited]
        where.append(units.c.blender.in_(blenders))
        if not with_gpu:
            where.append(units.c.needs_gpu.is_(False))
        query = select(units).where(*where).order_by(units.c.rank, units.c.task_id, units.c.position)
        return list(self._all(query.limit(limit)))

    def running(self) -> list[Unit]:
        return list(self._all(select(units).where(units.c.state == UnitState.RUNNING)))

    def next_backoff(self, now: float) -> float | None:
        query = select(func.min(units.c.not_before)).where(
            units.c.state == UnitState.READY, units.c.held.is_(False), units.c.not_before > now
        )
        return self._connection.execute(query).scalar()

    def _all(self, query: Select[Any]) -> tuple[Unit, ...]:
        return tuple(from_row(Unit, row) for row in self._connection.execute(query).mappings())


def units_where(
    task_id: str, states: Sequence[UnitState], unit_ids: Sequence[str] | None
) -> Iterator[list[ColumnElement[bool]]]:
    """Yield the condition for units of a task in some states, of these ids only, in parts that fit a statement."""
    where = [units.c.task_id == task_id, units.c.state.in_(states)]
    if unit_ids is None:
        yield where
        return
    for part in batched_ids(unit_ids):
        yield [*where, units.c.id.in_(part)]
