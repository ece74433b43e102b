"""The execution log and its events on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from renderfarm.domain import models
from serve_app.schemas.common import moment


class LogEntry(BaseModel):
    """What changed, from what, to what, why and by whom."""

    id: int = Field(description="Rises; also the id of the event in the event stream.")
    at: datetime
    event: str = Field(examples=["unit.state"])
    old: str | None
    new: str | None
    reason: str
    actor: str = Field(examples=["user:local", "scheduler"])
    unit_id: str | None
    attempt: int | None
    revision: int | None

    @staticmethod
    def of(entry: models.LogEntry) -> LogEntry:
        return LogEntry(
            id=entry.id,
            at=moment(entry.at),
            event=entry.event,
            old=entry.old,
            new=entry.new,
            reason=entry.reason,
            actor=entry.actor,
            unit_id=entry.unit_id,
            attempt=entry.attempt,
            revision=entry.revision,
        )


class Log(BaseModel):
    """A stretch of the execution log, oldest first."""

    items: list[LogEntry]
    next_after: int = Field(description="`after` of the next request.")

    @staticmethod
    def of(entries: Sequence[models.LogEntry], after: int) -> Log:
        """Return what follows ``after``."""
        return Log(items=[LogEntry.of(entry) for entry in entries], next_after=entries[-1].id if entries else after)


class Event(BaseModel):
    """The data of a server-sent event: a hint at what changed; fetch it to know."""

    id: int
    task_id: str | None
    unit_id: str | None
    revision: int | None

    @staticmethod
    def of(entry: models.LogEntry) -> Event:
        return Event(id=entry.id, task_id=entry.task_id, unit_id=entry.unit_id, revision=entry.revision)
