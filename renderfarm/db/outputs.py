"""Committed outputs in the database."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Select, delete, false, func, select, update

from renderfarm.db.rows import ROWS_PER_STATEMENT, batched_ids, from_row, insert_rows, to_row
from renderfarm.db.tables import outputs
from renderfarm.domain.models import Output, OutputRole
from renderfarm.ports import Page

_COLUMNS = [column for column in outputs.c if column is not outputs.c.impression]


class SqlOutputs:
    """Implements ``ports.Outputs``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, output_id: str) -> Output | None:
        row = self._connection.execute(_select().where(outputs.c.id == output_id)).mappings().first()
        return None if row is None else from_row(Output, row)

    def add(self, new_outputs: Sequence[Output], impressions: Mapping[str, bytes] = MappingProxyType({})) -> None:
        rows = [_new_row(output, impressions.get(output.id)) for output in new_outputs]
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            insert_rows(self._connection, outputs, rows[start : start + ROWS_PER_STATEMENT])

    def impressions(self, task_id: str) -> dict[str, bytes]:
        where = (outputs.c.task_id == task_id, outputs.c.impression.is_not(None))
        rows = self._connection.execute(select(outputs.c.id, outputs.c.impression).where(*where))
        return {output_id: bytes(impression) for output_id, impression in rows}

    def present(self, output_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for part in batched_ids(output_ids):
            found |= set(self._connection.execute(select(outputs.c.id).where(outputs.c.id.in_(part))).scalars())
        return found

    def named(self, task_id: str, name: str) -> Output | None:
        query = _select().where(outputs.c.task_id == task_id, outputs.c.name == name)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else from_row(Output, row)

    def remove(self, unit_ids: Sequence[str], frames: Collection[int]) -> list[Output]:
        removed: list[Output] = []
        for part in batched_ids(unit_ids):
            rows = self._connection.execute(_select().where(outputs.c.unit_id.in_(part))).mappings()
            found = [from_row(Output, row) for row in rows]
            undone = [output for output in found if output.frame in frames or output.role is OutputRole.MOVIE]
            for ids in batched_ids([output.id for output in undone]):
                self._connection.execute(delete(outputs).where(outputs.c.id.in_(ids)))
            removed += undone
        return removed

    def of_task(self, task_id: str, limit: int = 1_000_000, offset: int = 0) -> Page[Output]:
        where = (outputs.c.task_id == task_id, outputs.c.role != OutputRole.PART)
        total = self._connection.execute(select(func.count()).select_from(outputs).where(*where)).scalar_one()
        order = (outputs.c.camera, outputs.c.frame, outputs.c.name)
        query = _select().where(*where).order_by(*order).limit(limit).offset(offset)
        rows = self._connection.execute(query).mappings()
        return Page(items=tuple(from_row(Output, row) for row in rows), total=total)

    def of_frame(self, task_id: str, frame: int) -> list[Output]:
        where = (outputs.c.task_id == task_id, outputs.c.frame == frame, outputs.c.role == OutputRole.PICTURE)
        query = _select().where(*where).order_by(outputs.c.camera, outputs.c.name)
        return [from_row(Output, row) for row in self._connection.execute(query).mappings()]

    def of_units(self, unit_ids: Collection[str]) -> list[Output]:
        found: list[Output] = []
        for part in batched_ids(sorted(unit_ids)):
            where = outputs.c.unit_id.in_(part)
            query = _select().where(where).order_by(outputs.c.unit_id, outputs.c.frame, outputs.c.name)
            found += [from_row(Output, row) for row in self._connection.execute(query).mappings()]
        return found

    def unpublished(self, limit: int) -> list[Output]:
        where = (outputs.c.published == false(), outputs.c.role != OutputRole.PART)
        query = _select().where(*where).order_by(outputs.c.committed_at).limit(limit)
        return [from_row(Output, row) for row in self._connection.execute(query).mappings()]

    def mark_published(self, output_ids: Sequence[str]) -> int:
        where = outputs.c.id.in_(output_ids)
        return self._connection.execute(update(outputs).where(where), {"published": True}).rowcount


def _select() -> Select[Any]:
    """Read outputs without their impressions, which take more room than all the rest."""
    return select(*_COLUMNS)


def _new_row(output: Output, impression: bytes | None) -> dict[str, Any]:
    row = to_row(output)
    # As text, which every database takes for JSON: see insert_rows.
    flaws = None if row["flaws"] is None else json.dumps(row["flaws"])
    return {**row, "flaws": flaws, "impression": impression}
