"""Between rows and the domain's values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter
from sqlalchemy import Connection, Dialect, RowMapping, Table

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure
from renderfarm.domain.flaws import Flaw
from renderfarm.domain.frames import format_frames, parse_frames
from renderfarm.domain.parts import Part
from renderfarm.domain.render_settings import RenderSettings

V = TypeVar("V")
_IDS_PER_STATEMENT = 1000
_ROWS_PER_UPDATE = 250
#: Of one INSERT: SQLite takes 32,766 parameters.
ROWS_PER_STATEMENT = 500

#: Columns that hold a value as JSON, by the value's type.
_JSON_VALUES: Mapping[str, Any] = {
    "facts": SceneFacts,
    "failure": Failure,
    "flaws": tuple[Flaw, ...],
    "part": Part,
    "settings": RenderSettings,
}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def from_row(kind: type[V], row: RowMapping, **extra: Any) -> V:
    """Build a domain value from a row that has a column for each of its fields (or an ``extra`` for it).

    Columns that the value does not have are left out. Enums, tuples and nested values are rebuilt by type.
    """
    values: dict[str, Any] = {**row, **extra}
    if "frames" in values:
        values["frames"] = parse_frames(values["frames"]) if values["frames"] else ()
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    value: V = _adapter(cast("Any", kind)).validate_python({name: values[name] for name in known})
    return value


def to_row(value: Any, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the columns of a domain value."""
    names = [field.name for field in fields(value) if field.name not in without]
    return {name: _to_column(name, getattr(value, name)) for name in names}


def changed(old: Any, new: Any) -> dict[str, Any]:
    """Return the columns in which ``new`` differs from ``old``."""
    names = [field.name for field in fields(new) if getattr(old, field.name) != getattr(new, field.name)]
    return {name: _to_column(name, getattr(new, name)) for name in names}


def _to_column(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "frames":
        return format_frames(value)
    if name in _JSON_VALUES:
        return _adapter(_JSON_VALUES[name]).dump_python(value, mode="json")
    return list(value) if isinstance(value, tuple) else value


def batched_ids(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ids in parts that fit into one statement: SQLite takes 32,766 parameters, and fewer plan faster."""
    return (ids[start : start + _IDS_PER_STATEMENT] for start in range(0, len(ids), _IDS_PER_STATEMENT))


Change = tuple[str, Mapping[str, Hashable], Mapping[str, Any]]
"""A row's key, what else must be so for it to be written, and its new columns."""


def update_rows(
    connection: Connection,
    table: Table,
    key: str,
    changes: Sequence[Change],
    *,
    added: frozenset[str] = frozenset(),
) -> int:
    """Write changes of many rows in a few statements; return how many rows were found as they must be.

    Columns in ``added`` are counted up by what is given. Rows that change in the same columns under the same conditions
    go together; a column whose new values differ becomes a CASE. A statement for each row would cost a round trip each.
    """
    groups: dict[Hashable, list[Change]] = defaultdict(list)
    for change in changes:
        _, conditions, values = change
        groups[tuple(conditions.items()), frozenset(values)].append(change)
    return sum(
        _update_group(connection, table, key, group[start : start + _ROWS_PER_UPDATE], added)
        for group in groups.values()
        for start in range(0, len(group), _ROWS_PER_UPDATE)
    )


def _update_group(
    connection: Connection, table: Table, key: str, group: Sequence[Change], added: frozenset[str]
) -> int:
    if not group[0][2]:
        return len(group)  # nothing to write
    statement = _Statement(connection.dialect, table)
    quoted_key = statement.quote(key)
    assignments = []
    for name in group[0][2]:
        value = statement.chosen(key, name, [(row_key, values[name]) for row_key, _, values in group])
        column = statement.quote(name)
        assignments.append(f"{column} = {column} + {value}" if name in added else f"{column} = {value}")
    conditions = [f"{statement.quote(name)} = {statement.bound(name, value)}" for name, value in group[0][1].items()]
    keys = ", ".join(statement.bound(key, row_key) for row_key, _, _ in group)
    text = (
        f"UPDATE {statement.quote(table.name)} SET {', '.join(assignments)}"
        f" WHERE {' AND '.join([*conditions, f'{quoted_key} IN ({keys})'])}"
    )
    return connection.exec_driver_sql(text, tuple(statement.values)).rowcount


class _Statement:
    """A statement as plain text with its values: SQLAlchemy takes many times as long to compile hundreds of rows."""

    def __init__(self, dialect: Dialect, table: Table) -> None:
        self.values: list[Any] = []
        self.quote = dialect.identifier_preparer.quote
        self._mark = "?" if dialect.paramstyle == "qmark" else "%s"
        self._dialect = dialect
        self._table = table
        self._processors: dict[str, Any] = {}

    def bound(self, name: str, value: Any) -> str:
        """Return the mark that stands for a value of a column."""
        if name not in self._processors:
            kind = self._table.c[name].type
            self._processors[name] = kind.dialect_impl(self._dialect).bind_processor(self._dialect)
        process = self._processors[name]
        self.values.append(value if process is None else process(value))
        return self._mark

    def chosen(self, key: str, name: str, by_key: Sequence[tuple[Any, Any]]) -> str:
        """Return the column's new value: the one that all rows get, or a CASE."""
        first = by_key[0][1]
        if all(value == first for _, value in by_key):
            return self.bound(name, first)
        whens = [f"WHEN {self.bound(key, row_key)} THEN {self.bound(name, value)}" for row_key, value in by_key]
        return f"CASE {self.quote(key)} {' '.join(whens)} END"


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Write rows that have the same columns, and no JSON in them but null, by one statement; return its result."""
    columns = tuple(rows[0])
    text = _insert_text(connection.dialect, table, columns, len(rows))
    return connection.exec_driver_sql(text, tuple(row[name] for row in rows for name in columns))


def _insert_text(dialect: Dialect, table: Table, columns: Sequence[str], rows: int) -> str:
    quote = dialect.identifier_preparer.quote
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    row = "(" + ", ".join([mark] * len(columns)) + ")"
    names = ", ".join(quote(name) for name in columns)
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES " + ", ".join([row] * rows)
