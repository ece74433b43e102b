"""Tasks in the database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from renderfarm.db.changes import Changes
from renderfarm.db.rows import batched_ids, changed, from_row, to_row
from renderfarm.db.tables import tasks
from renderfarm.domain.models import Task
from renderfarm.ports import Page, TaskQuery

_SORTABLE = {name: tasks.c[name] for name in ("created_at", "updated_at", "priority", "name", "state")}


class SqlTasks:
    """Implements ``ports.Tasks``."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def get(self, task_id: str) -> Task | None:
        return self._first(task_id, lock=False)

    def lock(self, task_id: str) -> Task | None:
        return self._first(task_id, lock=True)

    def some(self, task_ids: Collection[str]) -> dict[str, Task]:
        found: dict[str, Task] = {}
        for part in batched_ids(sorted(task_ids)):
            rows = self._connection.execute(select(tasks).where(tasks.c.id.in_(part))).mappings()
            found |= {row["id"]: from_row(Task, row) for row in rows}
        return found

    def lock_all(self, task_ids: Collection[str]) -> dict[str, Task]:
        locked: dict[str, Task] = {}
        for part in batched_ids(sorted(task_ids)):
            query = select(tasks).where(tasks.c.id.in_(part)).order_by(tasks.c.id).with_for_update()
            locked |= {row["id"]: from_row(Task, row) for row in self._connection.execute(query).mappings()}
        return locked

    def _first(self, task_id: str, *, lock: bool) -> Task | None:
        query = select(tasks).where(tasks.c.id == task_id)
        row = self._connection.execute(query.with_for_update() if lock else query).mappings().first()
        return None if row is None else from_row(Task, row)

    def add(self, task: Task) -> None:
        self._connection.execute(insert(tasks), to_row(task))

    def update(self, old: Task, new: Task) -> Task:
        new = replace(new, revision=old.revision + 1)
        self._connection.execute(update(tasks).where(tasks.c.id == old.id), changed(old, new))
        self._changes.add_revision(new.id, new.revision)
        return new

    def page(self, query: TaskQuery) -> Page[Task]:
        where = _conditions(query)
        total = self._connection.execute(select(func.count()).select_from(tasks).where(*where)).scalar_one()
        column = _SORTABLE[query.sort]
        order = (column.desc(), tasks.c.id.desc()) if query.descending else (column, tasks.c.id)
        statement = select(tasks).where(*where).order_by(*order).limit(query.limit).offset(query.offset)
        rows = self._connection.execute(statement).mappings()
        return Page(items=tuple(from_row(Task, row) for row in rows), total=total)


def _conditions(query: TaskQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.project_id is not None:
        conditions.append(tasks.c.project_id == query.project_id)
    if query.states:
        conditions.append(tasks.c.state.in_(query.states))
    if query.text:
        conditions.append(tasks.c.name.icontains(query.text, autoescape=True))
    return conditions
