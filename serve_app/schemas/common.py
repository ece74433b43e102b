"""What the wire's objects are made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, Field

from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.ports import Page

T = TypeVar("T")
S = TypeVar("S")


class Listed(BaseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    total: int = Field(description="Items in the whole list.")
    limit: int
    offset: int


class Error(BaseModel):
    """A failure in one line, with its kind."""

    kind: FailureKind
    message: str

    @staticmethod
    def of(failure: Failure | None) -> Error | None:
        return None if failure is None else Error(kind=failure.kind, message=failure.message)


def listed(page: Page[T], convert: Callable[[T], S], *, limit: int, offset: int) -> Listed[S]:
    """Return a page as it goes over the wire."""
    return Listed(items=[convert(item) for item in page.items], total=page.total, limit=limit, offset=offset)


def moment(seconds: float) -> datetime:
    """Return seconds since the epoch as a time in UTC, which JSON shows with a ``Z``."""
    return datetime.fromtimestamp(seconds, UTC)


def maybe_moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def percent(done: float, total: int) -> float:
    return round(100.0 * done / total, 2) if total else 0.0
