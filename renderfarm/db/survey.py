"""What checks ask of the whole database, a part at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, and_, case, func, or_, select

from renderfarm.db.rows import batched_ids
from renderfarm.db.tables import asset_files, assets, attempts, outbox, outputs, tasks, units
from renderfarm.domain.models import OutputRole, UnitKind
from renderfarm.domain.states import UNIT_OPEN, AssetState, TaskState, UnitState
from renderfarm.ports import Admission, BlobOwner, BlobUse, Counters, OutboxMessage, TaskLine

_COUNTERS = ("units_total", "units_open", "units_failed", "frames_done")
_NOT_STARTED = (TaskState.QUEUED, TaskState.PAUSED)

#: All that refers to blobs (what is not here loses them): table, digest column, and columns of the primary key.
_DIGESTS: Mapping[BlobOwner, tuple[Table, Column[str], tuple[Column[str], ...]]] = {
    BlobOwner.ASSET_FILE: (asset_files, asset_files.c.digest, (asset_files.c.id,)),
    BlobOwner.OUTPUT: (outputs, outputs.c.digest, (outputs.c.id,)),
    BlobOwner.LOG: (attempts, attempts.c.log_digest, (attempts.c.unit_id, attempts.c.number)),
}


class SqlSurvey:
    """Implements ``ports.Survey``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- tasks -----------------------------------------------------------------------------------------------

    def tasks(self, after: str, limit: int) -> list[TaskLine]:
        query = _task_lines().where(tasks.c.id > after).order_by(tasks.c.id).limit(limit)
        return self._lines(query)

    def tasks_of(self, task_ids: Collection[str]) -> list[TaskLine]:
        parts = batched_ids(sorted(task_ids))
        return [line for part in parts for line in self._lines(_task_lines().where(tasks.c.id.in_(part)))]

    def changed_tasks(self, since: float, limit: int) -> list[TaskLine]:
        return self._lines(_task_lines().where(tasks.c.updated_at >= since).order_by(tasks.c.updated_at).limit(limit))

    def _lines(self, query: Select[Any]) -> list[TaskLine]:
        return [
            TaskLine(
                id=row["id"],
                state=TaskState(row["state"]),
                revision=row["revision"],
                updated_at=row["updated_at"],
                counters=_counters(row),
            )
            for row in self._connection.execute(query).mappings()
        ]

    def tally(self, task_ids: Collection[str]) -> dict[str, Counters]:
        tallies: dict[str, Counters] = {}
        for part in batched_ids(sorted(task_ids)):
            tallies |= self._tally(part)
        return tallies

    def _tally(self, task_ids: Collection[str]) -> dict[str, Counters]:
        of_units = (
            select(
                units.c.task_id,
                func.count().label("units_total"),
                _number_of(units.c.state.in_(UNIT_OPEN)).label("units_open"),
                _number_of(units.c.state == UnitState.FAILED).label("units_failed"),
            )
            .where(units.c.task_id.in_(task_ids))
            .group_by(units.c.task_id)
        )
        # A frame may have several files.
        frames = select(outputs.c.task_id, outputs.c.unit_id, outputs.c.frame).distinct()
        of_these = frames.where(outputs.c.task_id.in_(task_ids), outputs.c.role == OutputRole.PICTURE).subquery()
        of_frames = select(of_these.c.task_id, func.count()).group_by(of_these.c.task_id)
        done = {task_id: int(number) for task_id, number in self._connection.execute(of_frames)}
        rows = {row["task_id"]: row for row in self._connection.execute(of_units).mappings()}
        none = dict.fromkeys(_COUNTERS, 0)
        return {
            task_id: _counters({**none, **rows.get(task_id, {}), "frames_done": done.get(task_id, 0)})
            for task_id in task_ids
        }

    # --- messages --------------------------------------------------------------------------------------------

    def late_messages(self, before: float, limit: int) -> list[OutboxMessage]:
        query = select(outbox).where(outbox.c.created_at < before).order_by(outbox.c.id).limit(limit)
        rows = self._connection.execute(query).mappings()
        return [OutboxMessage(id=row["id"], topic=row["topic"], key=row["key"]) for row in rows]

    def unplanned_tasks(self, before: float, limit: int) -> list[Admission]:
        late = (tasks.c.state.in_(_NOT_STARTED), tasks.c.units_total == 0, tasks.c.updated_at < before)
        query = select(tasks.c.id, tasks.c.updated_at).where(*late).order_by(tasks.c.updated_at).limit(limit)
        return self._not_in_outbox(query)

    def uninspected_assets(self, before: float, limit: int) -> list[Admission]:
        inspected = select(units.c.id).where(units.c.asset_id == assets.c.id, units.c.kind == UnitKind.INSPECT)
        late = (assets.c.state == AssetState.PENDING, assets.c.created_at < before, ~inspected.exists())
        query = select(assets.c.id, assets.c.created_at).where(*late).order_by(assets.c.created_at).limit(limit)
        return self._not_in_outbox(query)

    def _not_in_outbox(self, query: Select[Any]) -> list[Admission]:
        found = [Admission(key=key, waits_since=since) for key, since in self._connection.execute(query)]
        unsent: set[str] = set()
        for part in batched_ids([admission.key for admission in found]):
            unsent |= set(self._connection.execute(select(outbox.c.key).where(outbox.c.key.in_(part))).scalars())
        return [admission for admission in found if admission.key not in unsent]

    def latest_admission(self) -> tuple[float, float] | None:
        newest = select(units.c.created_at, units.c.task_id, units.c.asset_id).order_by(units.c.id.desc()).limit(1)
        row = self._connection.execute(newest).first()
        if row is None:
            return None
        if row.task_id is None:
            accepted = select(assets.c.created_at).where(assets.c.id == row.asset_id)
        else:
            accepted = select(tasks.c.created_at).where(tasks.c.id == row.task_id)
        return row.created_at, self._connection.execute(accepted).scalar_one()

    # --- blobs -----------------------------------------------------------------------------------------------

    def blob_uses(self, owner: BlobOwner, after: tuple[str | int, ...], limit: int) -> list[BlobUse]:
        table, digest, key = _DIGESTS[owner]
        columns = [column for column in table.c if column in (digest, *key) or column.name in ("asset_id", "path")]
        query = select(*columns).where(digest.is_not(None)).order_by(*key).limit(limit)
        if after:
            query = query.where(_behind(key, after))
        return [
            BlobUse(
                owner=owner,
                digest=row[digest.name],
                key=tuple(row[column.name] for column in key),
                asset_id=row.get("asset_id"),
                path=row.get("path"),
            )
            for row in self._connection.execute(query).mappings()
        ]

    def referenced(self, digests: Collection[str]) -> set[str]:
        found: set[str] = set()
        for part in batched_ids(sorted(digests)):
            for _, digest, _ in _DIGESTS.values():
                found |= set(self._connection.execute(select(digest).where(digest.in_(part))).scalars())
        return found


def _task_lines() -> Select[Any]:
    counters = (tasks.c[name] for name in _COUNTERS)
    return select(tasks.c.id, tasks.c.state, tasks.c.revision, tasks.c.updated_at, *counters)


def _counters(row: Mapping[Any, Any]) -> Counters:
    # Sums are decimal numbers on MySQL and MariaDB.
    return Counters(**{name: int(row[name]) for name in _COUNTERS})


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _behind(key: tuple[Column[str], ...], after: tuple[str | int, ...]) -> ColumnElement[bool]:
    """Compare a primary key of one or two columns: not every database finds its way by a pair."""
    if len(key) == 1:
        return key[0] > after[0]
    return or_(key[0] > after[0], and_(key[0] == after[0], key[1] > after[1]))
