"""What checks ask of the whole database, a part at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from renderfarm.domain.states import TaskState
from renderfarm.ports.tables import OutboxMessage


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What a task's row says of its units and outputs, or what those say themselves."""

    units_total: int
    units_open: int
    units_failed: int
    frames_done: int


@dataclass(frozen=True, kw_only=True)
class TaskLine:
    """As much of a task as checks need, so that they can go through a million."""

    id: str
    state: TaskState
    revision: int
    updated_at: float
    counters: Counters


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A task or an asset that waits for the scheduler to make units of it."""

    key: str
    waits_since: float


class BlobOwner(StrEnum):
    """What refers to blobs by their digests."""

    ASSET_FILE = "asset_file"
    OUTPUT = "output"
    LOG = "log"


@dataclass(frozen=True, kw_only=True)
class BlobUse:
    """One row that refers to a blob."""

    owner: BlobOwner
    digest: str
    key: tuple[str | int, ...]
    """The row's primary key: of a file its number, of an output its id, of a log its attempt's unit and number."""
    asset_id: str | None
    path: str | None
    """With ``asset_id`` for an asset's file only."""


class Survey(Protocol):
    """What checks ask of the whole database, a part at a time, so that nobody waits for them."""

    def tasks(self, after: str, limit: int) -> list[TaskLine]:
        """Tasks with an id above ``after``, by id."""

    def tasks_of(self, task_ids: Collection[str]) -> list[TaskLine]:
        """These tasks, by id."""

    def changed_tasks(self, since: float, limit: int) -> list[TaskLine]:
        """Tasks that changed at ``since`` or later, in that order."""

    def tally(self, task_ids: Collection[str]) -> dict[str, Counters]:
        """Count anew what the tasks' counters say."""

    def late_messages(self, before: float, limit: int) -> list[OutboxMessage]:
        """Unsent messages from before that time, oldest first."""

    def unplanned_tasks(self, before: float, limit: int) -> list[Admission]:
        """Open tasks that have had no units since before that time, and no message in the outbox."""

    def uninspected_assets(self, before: float, limit: int) -> list[Admission]:
        """Pending assets from before that time that have no inspect unit, and no message in the outbox."""

    def latest_admission(self) -> tuple[float, float] | None:
        """When the scheduler last made units, and when what it made them of had been accepted."""

    def blob_uses(self, owner: BlobOwner, after: tuple[str | int, ...], limit: int) -> list[BlobUse]:
        """Rows with a key above ``after`` (empty: all) that refer to a blob, by key."""

    def referenced(self, digests: Collection[str]) -> set[str]:
        """Return those of the digests that any row refers to."""
