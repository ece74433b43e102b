"""Between rows and the domain's values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Connection, Dialect, RowMapping, Table, case, literal, update

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure
from renderfarm.domain.frames import format_frames, parse_frames
from renderfarm.domain.render_settings import RenderSettings

V = TypeVar("V")
_IDS_PER_STATEMENT = 1000
_ROWS_PER_UPDATE = 250
#: Of one INSERT: SQLite takes 32,766 parameters.
ROWS_PER_STATEMENT = 500

#: Columns that hold a value as JSON, by the value's type.
_JSON_VALUES: Mapping[str, type] = {"facts": SceneFacts, "failure": Failure, "settings": RenderSettings}


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
    conditions = group[0][1]
    where: list[ColumnElement[bool]] = [table.c[name] == value for name, value in conditions.items()]
    where.append(table.c[key].in_([row_key for row_key, _, _ in group]))
    columns = {
        name: _new_value(table, key, name, {row_key: values[name] for row_key, _, values in group})
        for name in group[0][2]
    }
    columns |= {name: table.c[name] + columns[name] for name in added.intersection(columns)}
    return connection.execute(update(table).where(*where).values(columns)).rowcount


def _new_value(table: Table, key: str, name: str, by_key: Mapping[str, Any]) -> Any:
    first = next(iter(by_key.values()))
    if all(value == first for value in by_key.values()):
        return first
    kind = table.c[name].type
    whens: dict[Any, ColumnElement[Any]] = {row_key: literal(value, kind) for row_key, value in by_key.items()}
    return case(whens, value=table.c[key])


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Write rows that have the same columns, and no JSON in them but null, by one statement; return its result.

    As plain text: SQLAlchemy takes eight times as long to compile five hundred rows.
    """
    columns = tuple(rows[0])
    text = _insert_text(connection.dialect, table, columns, len(rows))
    return connection.exec_driver_sql(text, tuple(row[name] for row in rows for name in columns))


def _insert_text(dialect: Dialect, table: Table, columns: Sequence[str], rows: int) -> str:
    quote = dialect.identifier_preparer.quote
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    row = "(" + ", ".join([mark] * len(columns)) + ")"
    names = ", ".join(quote(name) for name in columns)
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES " + ", ".join([row] * rows)
