"""Dead letters on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from renderfarm import ports
from serve_app.schemas.common import moment
from serve_app.schemas.requests import Name

_IDS_MAX = 1000


class DeadLetter(BaseModel):
    """A message of the queue that was put aside."""

    id: str
    topic: str = Field(description="What it is about; `?` if nobody can read it.", examples=["task"])
    key: str = Field(description="The id of the task or asset that waits for it.")
    reason: str = Field(description="Why it was put aside.", examples=["its consumer died with it 5 times"])
    died_at: datetime

    @staticmethod
    def of(letter: ports.DeadLetter) -> DeadLetter:
        return DeadLetter(
            id=letter.id, topic=letter.topic, key=letter.key, reason=letter.reason, died_at=moment(letter.died_at)
        )


class DeadLetters(BaseModel):
    items: list[DeadLetter] = Field(description="Oldest first.")

    @staticmethod
    def of(letters: Iterable[ports.DeadLetter]) -> DeadLetters:
        return DeadLetters(items=[DeadLetter.of(letter) for letter in letters])


class ReplayIn(BaseModel):
    """Which dead letters to put back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ids": ["6f1c0a"]}]})

    ids: list[Name] | None = Field(default=None, min_length=1, max_length=_IDS_MAX, description="Absent: all of them.")


class Replayed(BaseModel):
    replayed: int = Field(description="How many messages are in the queue again.")
