"""Units in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, false, func, insert, or_, select, update

from renderfarm.db.rows import batched_ids, changed, from_row, to_row, update_rows
from renderfarm.db.tables import outputs, units
from renderfarm.domain.frames import parse_frames
from renderfarm.domain.leases import Beat, Lease
from renderfarm.domain.models import RENDERING, ReadyUnit, Unit, UnitKind
from renderfarm.domain.states import UNIT_ENDED, UNIT_WAITING, UnitState
from renderfarm.ports import InWork, Link, Page

#: What may change while a unit runs, behind what tells whether it still does.
_CHANGING = [
    units.c[name] for name in ("id", "attempt", "epoch", "frames_done", "progress", "progress_note", "lease_expires_at")
]
_PLACEABLE = [
    units.c[name]
    for name in (
        *("id", "kind", "project_id", "task_id", "asset_id", "position", "priority", "blender", "needs_gpu"),
        *("share", "memory_bytes", "frames", "frames_done", "attempt", "failed_on", "failures"),
    )
]
#: States of units that no worker has.
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

    def lock_all(self, unit_ids: Collection[str]) -> dict[str, Unit]:
        locked: dict[str, Unit] = {}
        for part in batched_ids(sorted(unit_ids)):
            query = select(units).where(units.c.id.in_(part)).order_by(units.c.id).with_for_update()
            locked |= {unit.id: unit for unit in self._all(query)}
        return locked

    def some(self, unit_ids: Collection[str]) -> dict[str, Unit]:
        found: dict[str, Unit] = {}
        for part in batched_ids(sorted(unit_ids)):
            found |= {unit.id: unit for unit in self._all(select(units).where(units.c.id.in_(part)))}
        return found

    def update_all(self, changes: Sequence[tuple[Unit, Unit]]) -> int:
        rows = [
            (old.id, {"state": old.state, "attempt": old.attempt, "epoch": old.epoch}, changed(old, new))
            for old, new in changes
        ]
        return update_rows(self._connection, units, "id", rows)

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
        where = [units.c.task_id == task_id, units.c.kind.in_((UnitKind.RENDER, UnitKind.MERGE))]
        # Parts for which nothing waits any more belong to no frame.
        where.append(or_(units.c.feeds.is_not(None), units.c.share.in_((0.0, 1.0))))
        query = select(units.c.id, units.c.state, units.c.frames).where(*where)
        rows = ((row.id, UnitState(row.state), parse_frames(row.frames)) for row in self._connection.execute(query))
        wanted = frozenset(frames)
        return [row for row in rows if not wanted.isdisjoint(row[2])]

    def count(self, task_id: str, state: UnitState, unit_ids: Sequence[str] | None = None) -> int:
        return sum(
            self._connection.execute(select(func.count()).select_from(units).where(*where)).scalar_one()
            for where in units_where(task_id, [state], unit_ids)
        )

    def pinned_blenders(self) -> list[tuple[str, str]]:
        where = (units.c.state.in_(UNIT_WAITING), units.c.task_id.is_not(None))
        rows = self._connection.execute(select(units.c.blender, units.c.task_id).where(*where).distinct())
        return [(row.blender, row.task_id) for row in rows]

    def repin(self, task_id: str, old: str, new: str) -> None:
        where = (units.c.task_id == task_id, units.c.state.in_(UNIT_WAITING), units.c.blender == old)
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

    def links(self, task_id: str) -> list[Link]:
        linked = or_(units.c.feeds.is_not(None), units.c.kind.in_((UnitKind.MERGE, UnitKind.ENCODE)))
        columns = (units.c.id, units.c.kind, units.c.state, units.c.feeds, units.c.share)
        query = select(*columns).where(units.c.task_id == task_id, linked).order_by(units.c.position)
        return [
            Link(id=unit_id, kind=UnitKind(kind), state=UnitState(state), feeds=feeds, share=share)
            for unit_id, kind, state, feeds, share in self._connection.execute(query)
        ]

    def inspection(self, asset_id: str) -> Unit | None:
        query = select(units).where(units.c.asset_id == asset_id, units.c.kind == UnitKind.INSPECT)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else from_row(Unit, row)

    def confirm(self, given: Collection[Unit]) -> dict[str, Unit]:
        by_id = {unit.id: unit for unit in given}
        confirmed: dict[str, Unit] = {}
        for part in batched_ids(sorted(by_id)):
            query = select(*_CHANGING).where(units.c.id.in_(part), units.c.state == UnitState.RUNNING)
            for row in self._connection.execute(query.order_by(units.c.id).with_for_update()):
                unit_id, attempt, epoch, frames_done, progress, note, expires_at = row
                unit = by_id[unit_id]
                if (attempt, epoch) == (unit.attempt, unit.epoch):
                    confirmed[unit_id] = replace(
                        unit,
                        frames_done=frames_done,
                        progress=progress,
                        progress_note=note,
                        lease_expires_at=expires_at,
                    )
        return confirmed

    def placeable(
        self, now: float, limit: int, *, blenders: Collection[str], with_gpu: bool, memory_bytes: int | None = None
    ) -> list[ReadyUnit]:
        # Planners are kept from other indexes, by which they would read and sort every ready unit: SQLite's by the sum,
        # MariaDB's, which counts on a filesort as soon as more than some are wanted, by name.
        waited = units.c.not_before + 0.0 <= now
        where = [units.c.state == UnitState.READY, units.c.held == false(), waited]
        where.append(units.c.blender.in_(blenders))
        if not with_gpu:
            where.append(units.c.needs_gpu == false())
        if memory_bytes is not None:
            where.append(units.c.memory_bytes <= memory_bytes)
        query = select(*_PLACEABLE).with_hint(units, "FORCE INDEX (ix_units_placeable)", "mysql").where(*where)
        query = query.order_by(units.c.rank, units.c.task_id, units.c.position)
        return [_ready_unit(*row) for row in self._connection.execute(query.limit(limit))]

    def raise_needs(self, task_id: str, memory_bytes: int) -> int:
        where = [units.c.task_id == task_id, units.c.state.in_(UNIT_WAITING)]
        where += [units.c.kind.in_(RENDERING), units.c.memory_bytes < memory_bytes]
        return self._connection.execute(update(units).where(*where), {"memory_bytes": memory_bytes}).rowcount

    def lease(self, workers: Sequence[tuple[ReadyUnit, str]], epoch: int, expires_at: float) -> int:
        fresh = {"progress": 0.0, "progress_note": "", "lease_expires_at": expires_at, "epoch": epoch}
        rows = [
            (
                unit.id,
                {"state": UnitState.READY, "attempt": unit.attempt},
                {"state": UnitState.RUNNING, "attempt": unit.attempt + 1, "worker_id": worker_id, **fresh},
            )
            for unit, worker_id in workers
        ]
        return update_rows(self._connection, units, "id", rows)

    def renew(self, beats: Sequence[Beat], expires_at: float) -> int:
        rows = [
            (
                beat.lease.unit_id,
                {"state": UnitState.RUNNING, "attempt": beat.lease.attempt, "epoch": beat.lease.epoch},
                {"lease_expires_at": expires_at, "progress": beat.progress, "progress_note": beat.note},
            )
            for beat in sorted(beats, key=lambda beat: beat.lease.unit_id)
        ]
        return update_rows(self._connection, units, "id", rows)

    def running(self) -> list[Unit]:
        return list(self._all(select(units).where(units.c.state == UnitState.RUNNING)))

    def in_work(self, task_ids: Collection[str]) -> dict[str, InWork]:
        columns = (func.sum(units.c.progress * units.c.share), func.count(units.c.worker_id.distinct()))
        found: dict[str, InWork] = {}
        for part in batched_ids(sorted(task_ids)):
            where = (units.c.state == UnitState.RUNNING, units.c.task_id.in_(part))
            query = select(units.c.task_id, *columns).where(*where).group_by(units.c.task_id)
            for task_id, progress, workers in self._connection.execute(query):
                found[task_id] = InWork(frames=float(progress), workers=workers)
        return found

    def leases(self) -> list[Lease]:
        columns = (units.c.id, units.c.task_id, units.c.attempt, units.c.epoch, units.c.worker_id)
        rows = self._connection.execute(select(*columns).where(units.c.state == UnitState.RUNNING))
        return [
            Lease(unit_id=unit_id, task_id=task_id, attempt=attempt, epoch=epoch, worker_id=worker_id or "")
            for unit_id, task_id, attempt, epoch, worker_id in rows
        ]

    def expired(self, now: float) -> list[Unit]:
        where = (units.c.state == UnitState.RUNNING, units.c.lease_expires_at < now)
        return list(self._all(select(units).where(*where)))

    def next_backoff(self, now: float) -> float | None:
        query = select(func.min(units.c.not_before)).where(
            units.c.state == UnitState.READY, units.c.held == false(), units.c.not_before > now
        )
        return self._connection.execute(query).scalar()

    def _all(self, query: Select[Any]) -> tuple[Unit, ...]:
        return tuple(from_row(Unit, row) for row in self._connection.execute(query).mappings())


def _ready_unit(
    unit_id: str,
    kind: str,
    project_id: str,
    task_id: str | None,
    asset_id: str,
    position: int,
    priority: int,
    blender: str,
    needs_gpu: bool,
    share: float,
    memory_bytes: int,
    frames: str,
    frames_done: int,
    attempt: int,
    failed_on: list[str],
    failures: list[str],
) -> ReadyUnit:
    return ReadyUnit(
        id=unit_id,
        kind=UnitKind(kind),
        project_id=project_id,
        task_id=task_id,
        asset_id=asset_id,
        position=position,
        priority=priority,
        blender=blender,
        needs_gpu=needs_gpu,
        is_part=0 < share < 1,
        memory_bytes=memory_bytes,
        frames_left=_count_frames(frames) - frames_done,
        attempt=attempt,
        failed_on=tuple(failed_on),
        failures=len(failures),
    )


def _count_frames(frames: str) -> int:
    if frames.isdecimal():  # as most are
        return 1
    return len(parse_frames(frames)) if frames else 0


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
