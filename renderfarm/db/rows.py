"""Between rows and the domain's values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter
from sqlalchemy import RowMapping

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure
from renderfarm.domain.frames import format_frames, parse_frames
from renderfarm.domain.render_settings import RenderSettings

V = TypeVar("V")
_IDS_PER_STATEMENT = 1000

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
