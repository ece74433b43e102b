"""What is kept in the database, table by table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.leases import Beat, Lease
from renderfarm.domain.models import (
    Asset,
    Attempt,
    AttemptStep,
    LogEntry,
    Output,
    Project,
    ReadyUnit,
    Task,
    Unit,
    UnitKind,
    Worker,
)
from renderfarm.domain.states import TaskState, UnitState

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A slice of a longer list."""

    items: tuple[T, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class TaskQuery:
    """Which tasks to list, and how."""

    project_id: str | None = None
    states: tuple[TaskState, ...] = ()
    text: str | None = None
    """Part of the task's name."""
    sort: str = "created_at"
    """One of ``created_at``, ``updated_at``, ``priority``, ``name``, ``state``."""
    descending: bool = True
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class InWork:
    """What is being rendered of a task."""

    frames: float
    """Shares of frames that are done, summed up."""
    workers: int


@dataclass(frozen=True, kw_only=True)
class Link:
    """A unit that waits for others, or for which one waits."""

    id: str
    kind: UnitKind
    state: UnitState
    feeds: str | None
    share: float


class Projects(Protocol):
    def get(self, project_id: str) -> Project | None: ...
    def add(self, project: Project) -> None: ...


class Assets(Protocol):
    def get(self, asset_id: str) -> Asset | None: ...
    def facts(self, asset_id: str) -> SceneFacts | None:
        """Return what inspecting an asset has found; its files, which may be many, are not read."""

    def add(self, asset: Asset) -> None: ...
    def latest_version(self, project_id: str, name: str) -> int:
        """Return the highest version of that name, 0 if there is none; others who ask wait for this."""

    def update(self, old: Asset, new: Asset) -> bool:
        """Write what differs, if the row is still in the old state; tell whether it was."""

    def page(self, project_id: str | None, limit: int, offset: int) -> Page[Asset]:
        """Newest first; the files are left out."""


class Tasks(Protocol):
    def get(self, task_id: str) -> Task | None: ...
    def lock(self, task_id: str) -> Task | None:
        """Read a task and keep others from changing it until the transaction ends. Before its units."""

    def some(self, task_ids: Collection[str]) -> dict[str, Task]: ...
    def lock_all(self, task_ids: Collection[str]) -> dict[str, Task]:
        """Do so with several, in the one order that everybody keeps."""

    def add(self, task: Task) -> None: ...
    def update(self, old: Task, new: Task) -> Task:
        """Write what differs, raise the revision, and return the task as it is now. ``old`` must be locked."""

    def page(self, query: TaskQuery) -> Page[Task]: ...


class Units(Protocol):
    def get(self, unit_id: str) -> Unit | None: ...
    def add(self, units: Sequence[Unit], *, held: bool = False) -> None: ...
    def update(self, old: Unit, new: Unit) -> bool:
        """Write what differs, if the row still has the old state, attempt and epoch; tell whether it had."""

    def lock_all(self, unit_ids: Collection[str]) -> dict[str, Unit]:
        """Read units and keep others from changing them until the transaction ends. After their tasks."""

    def some(self, unit_ids: Collection[str]) -> dict[str, Unit]: ...
    def update_all(self, changes: Sequence[tuple[Unit, Unit]]) -> int:
        """Write many (old, new) in few statements, under the same condition; return how many rows still had it."""

    def of_task(
        self, task_id: str, states: Sequence[UnitState] = (), limit: int = 1_000_000, offset: int = 0
    ) -> Page[Unit]:
        """Units of a task in order; ``states`` empty: all."""

    def hold(self, task_id: str, held: bool) -> None:
        """Keep a task's open units from being placed, or let them be placed again."""

    def cancel_open(self, task_id: str) -> None:
        """Cancel every unit of a task that has not ended."""

    def restart(self, task_id: str, states: Sequence[UnitState], unit_ids: Sequence[str] | None = None) -> int:
        """Make the units of a task in these states (of these ids only) ready as if new; return how many they were.

        What their outputs hold stays done.
        """

    def with_frames(self, task_id: str, frames: Collection[int]) -> list[tuple[str, UnitState, tuple[int, ...]]]:
        """Return id, state and frames of each unit of a task that makes one of these frames, or a part of one."""

    def count(self, task_id: str, state: UnitState, unit_ids: Sequence[str] | None = None) -> int: ...
    def pinned_blenders(self) -> list[tuple[str, str]]:
        """Return each pair of a Blender version and the task whose ready or blocked units are bound to it."""

    def repin(self, task_id: str, old: str, new: str) -> None:
        """Bind a task's ready and blocked units to another Blender version."""

    def links(self, task_id: str) -> list[Link]:
        """Return the units of a task that wait for others, and those for which they wait."""

    def inspection(self, asset_id: str) -> Unit | None:
        """The inspect unit of an asset."""

    def confirm(self, units: Collection[Unit]) -> dict[str, Unit]:
        """Lock those units that still run the attempt with which they are given; return them as they are now.

        What never changes while a unit runs is taken from ``units``: much less is read than by ``lock_all``.
        """

    def placeable(
        self, now: float, limit: int, *, blenders: Collection[str], with_gpu: bool, memory_bytes: int | None = None
    ) -> list[ReadyUnit]:
        """Ready units for these Blenders whose backoff is over and whose task is not paused, first to go first.

        Args:
            with_gpu: also those that need a GPU.
            memory_bytes: those that need no more memory; None: however much they need.
        """

    def raise_needs(self, task_id: str, memory_bytes: int) -> int:
        """Note that the units of a task that nobody works on need so much memory; return how many did not say so."""

    def lease(self, workers: Sequence[tuple[ReadyUnit, str]], epoch: int, expires_at: float) -> int:
        """Let units run on workers, each as its next attempt; return how many were still ready and as given."""

    def renew(self, beats: Sequence[Beat], expires_at: float) -> int:
        """Keep leases; return how many of them still hold."""

    def running(self) -> list[Unit]: ...
    def in_work(self, task_ids: Collection[str]) -> dict[str, InWork]:
        """Return what is being rendered of those tasks of which anything is."""

    def leases(self) -> list[Lease]:
        """Return the leases of all running units."""

    def expired(self, now: float) -> list[Unit]:
        """Return the running units whose leases have run out."""

    def next_backoff(self, now: float) -> float | None:
        """When the first ready unit that now waits for its backoff may go."""


class Attempts(Protocol):
    def get(self, unit_id: str, number: int) -> Attempt | None: ...
    def add(self, attempts: Sequence[Attempt]) -> None: ...
    def advance(self, steps: Sequence[AttemptStep]) -> None: ...
    def attach_log(self, unit_id: str, number: int, log_digest: str | None) -> None: ...
    def cancel_running(self, task_id: str, now: float) -> None: ...
    def of_unit(self, unit_id: str) -> list[Attempt]: ...
    def peak_memory_bytes(self, asset_id: str) -> int:
        """Return the most memory that the latest units which rendered an asset have needed; 0: there are none."""


class Outputs(Protocol):
    def get(self, output_id: str) -> Output | None: ...
    def add(self, outputs: Sequence[Output], impressions: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Add outputs, and what is kept of some for their neighbours' sake, by id."""

    def impressions(self, task_id: str) -> dict[str, bytes]:
        """Return what is kept of a task's pictures for their neighbours' sake (``Glance.impression``), by id."""

    def present(self, output_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are there."""

    def named(self, task_id: str, name: str) -> Output | None: ...
    def remove(self, unit_ids: Sequence[str], frames: Collection[int]) -> list[Output]:
        """Remove what these units have for these frames, movies with any of them included; return it."""

    def of_task(self, task_id: str, limit: int = 1_000_000, offset: int = 0) -> Page[Output]:
        """In order of camera and frame, without parts of frames."""

    def of_frame(self, task_id: str, frame: int) -> list[Output]:
        """Its pictures from all cameras, in order of camera and name."""

    def of_units(self, unit_ids: Collection[str]) -> list[Output]:
        """In order of unit, frame and name."""

    def unpublished(self, limit: int) -> list[Output]: ...
    def mark_published(self, output_ids: Sequence[str]) -> int:
        """Return how many of them are there."""


class ExecutionLog(Protocol):
    def add(self, entries: Sequence[LogEntry]) -> None:
        """Append; the entries' ids are assigned here."""

    def page(self, *, task_id: str | None = None, after: int = 0, limit: int = 1000) -> list[LogEntry]:
        """Entries with an id above ``after``, oldest first."""

    def add_for_units(
        self, entry: LogEntry, task_id: str, states: Sequence[UnitState], unit_ids: Sequence[str] | None
    ) -> None:
        """Append ``entry`` once for each unit of a task in these states (of these ids only), with its state as old."""

    def last_id(self) -> int: ...
    def ids(self, after: int) -> list[int]:
        """Return the ids above ``after``, in order.

        Ids are given before the commit: a lower one may come to light after a higher one, but not among those of
        one task, which are written under its lock.
        """

    def some(self, ids: Sequence[int]) -> list[LogEntry]:
        """Return the entries with these ids, oldest first."""


@dataclass(frozen=True, kw_only=True)
class OutboxMessage:
    """A message that is to reach the queue at least once."""

    id: int
    topic: str
    key: str
    """The id of the task or asset that it is about; consumers are idempotent on it."""


class Outbox(Protocol):
    def add(self, topic: str, key: str, now: float) -> None: ...
    def unsent(self, limit: int) -> list[OutboxMessage]: ...
    def remove(self, ids: Sequence[int]) -> None: ...


class Workers(Protocol):
    def all(self) -> list[Worker]: ...
    def put(self, workers: Sequence[Worker]) -> None:
        """Insert or replace."""

    def all_gone(self) -> None:
        """Count on no worker until it is put again."""


class Leader(Protocol):
    def take(self, holder: str, now: float) -> int:
        """Become the leader; return the new, higher epoch."""

    def hold(self, epoch: int, now: float) -> None:
        """Renew the leadership within this transaction.

        Raises:
            Deposed: another scheduler has taken a higher epoch.
        """
