"""What the services and actors need from the outside, as Protocols. Adapters are wired in ``renderfarm.wiring``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

from renderfarm.domain.models import Asset, Attempt, LogEntry, Output, Project, Task, Unit, Worker
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.settings import Settings

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


# --- the database --------------------------------------------------------------------------------------------


class Projects(Protocol):
    def get(self, project_id: str) -> Project | None: ...
    def add(self, project: Project) -> None: ...


class Assets(Protocol):
    def get(self, asset_id: str) -> Asset | None: ...
    def add(self, asset: Asset) -> None: ...
    def latest_version(self, project_id: str, name: str) -> int:
        """Return the highest version of that name, 0 if there is none."""

    def update(self, old: Asset, new: Asset) -> bool:
        """Write what differs, if the row is still in the old state; tell whether it was."""

    def page(self, project_id: str | None, limit: int, offset: int) -> Page[Asset]:
        """Newest first; the files are left out."""


class Tasks(Protocol):
    def get(self, task_id: str) -> Task | None: ...
    def lock(self, task_id: str) -> Task | None:
        """Read a task and keep others from changing it until the transaction ends. Before its units."""

    def add(self, task: Task) -> None: ...
    def update(self, old: Task, new: Task) -> Task:
        """Write what differs, raise the revision, and return the task as it is now. ``old`` must be locked."""

    def page(self, query: TaskQuery) -> Page[Task]: ...


class Units(Protocol):
    def get(self, unit_id: str) -> Unit | None: ...
    def add(self, units: Sequence[Unit], *, held: bool = False) -> None: ...
    def update(self, old: Unit, new: Unit) -> bool:
        """Write what differs, if the row still has the old state, attempt and epoch; tell whether it had."""

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
        """Return id, state and frames of each unit of a task that has one of these frames."""

    def count(self, task_id: str, state: UnitState, unit_ids: Sequence[str] | None = None) -> int: ...
    def pinned_blenders(self) -> list[tuple[str, str]]:
        """Return each pair of a Blender version and the task whose ready units are bound to it."""

    def repin(self, task_id: str, old: str, new: str) -> None:
        """Bind a task's ready units to another Blender version."""

    def inspection(self, asset_id: str) -> Unit | None:
        """The inspect unit of an asset."""

    def placeable(self, now: float, limit: int, *, blenders: Collection[str], with_gpu: bool) -> list[Unit]:
        """Ready units for these Blenders whose backoff is over and whose task is not paused, first to go first.

        Args:
            with_gpu: also those that need a GPU.
        """

    def running(self) -> list[Unit]: ...
    def next_backoff(self, now: float) -> float | None:
        """When the first ready unit that now waits for its backoff may go."""


class Attempts(Protocol):
    def get(self, unit_id: str, number: int) -> Attempt | None: ...
    def add(self, attempt: Attempt) -> None: ...
    def update(self, old: Attempt, new: Attempt) -> None: ...
    def cancel_running(self, task_id: str, now: float) -> None: ...
    def of_unit(self, unit_id: str) -> list[Attempt]: ...


class Outputs(Protocol):
    def get(self, output_id: str) -> Output | None: ...
    def add(self, outputs: Sequence[Output]) -> None: ...
    def present(self, output_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are there."""

    def named(self, task_id: str, name: str) -> Output | None: ...
    def remove(self, unit_ids: Sequence[str], frames: Collection[int]) -> list[Output]:
        """Remove what these units have for these frames; return it."""

    def of_task(self, task_id: str, limit: int = 1_000_000, offset: int = 0) -> Page[Output]:
        """In order of camera folder and frame."""

    def of_unit(self, unit_id: str) -> list[Output]: ...
    def unpublished(self, limit: int) -> list[Output]: ...
    def mark_published(self, output_ids: Sequence[str]) -> None: ...


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
    def put(self, worker: Worker) -> None:
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


class Transaction(Protocol):
    """One atomic change. All of it is visible at the end, or none."""

    @property
    def projects(self) -> Projects: ...
    @property
    def assets(self) -> Assets: ...
    @property
    def tasks(self) -> Tasks: ...
    @property
    def units(self) -> Units: ...
    @property
    def attempts(self) -> Attempts: ...
    @property
    def outputs(self) -> Outputs: ...
    @property
    def log(self) -> ExecutionLog: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def workers(self) -> Workers: ...
    @property
    def leader(self) -> Leader: ...


class Database(Protocol):
    def write(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that may change things; commits at the end, rolls back on an exception."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that sees one consistent state and changes nothing."""

    def check(self) -> None:
        """Raise FarmUnavailable unless the database answers and has the present schema."""

    def close(self) -> None: ...


# --- the queue -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message taken from the queue, to be acknowledged after the durable write that it caused."""

    tag: int
    topic: str
    key: str


class Queue(Protocol):
    """At least once, in about the order of publishing."""

    def publish(self, messages: Sequence[tuple[str, str]]) -> None:
        """Store (topic, key) pairs; return once they are safe."""

    def take(self, limit: int) -> list[Delivery]:
        """Take up to ``limit`` messages that nobody else holds; empty if there are none."""

    def acknowledge(self, tags: Sequence[int]) -> None: ...
    def release(self, tags: Sequence[int]) -> None:
        """Give back what was taken and could not be dealt with; it is delivered again."""

    def close(self) -> None: ...


# --- the object store ----------------------------------------------------------------------------------------


class Objects(Protocol):
    """Immutable blobs by the SHA-256 of their bytes, and published files by name."""

    def put(self, source: Path) -> str:
        """Store a file's bytes, once however often they come; return their digest.

        Raises:
            StorageFull: there is no room; nothing is left behind.
        """

    def has(self, digest: str) -> bool: ...
    def open(self, digest: str) -> BinaryIO:
        """Raises NotFound."""

    def fetch(self, digest: str, target: Path) -> None:
        """Write a blob to ``target``, which appears only when it is whole. Raises NotFound, StorageFull."""

    def publish(self, digest: str, name: str) -> None:
        """Let the blob appear as a whole under ``name`` (folders with ``/``), replacing what stood there."""

    def unpublish(self, name: str) -> None:
        """Remove the name if it is there; the blob stays."""


# --- compute -------------------------------------------------------------------------------------------------


class Compute(Protocol):
    """The living side of the farm, as far as services may know it. Everything here is a hint or a look."""

    def wake(self) -> None:
        """Tell the scheduler that there may be something to do. Never fails: it would look by itself, later."""

    def live_log(
        self, worker_id: str, unit_id: str, attempt: int, offset: int, limit: int, tail: int | None
    ) -> tuple[int, bytes] | None:
        """Read Blender's output of a running attempt from its worker.

        Returns where the piece starts and the piece, or None if that worker does not run the attempt (any more).
        """

    def answers(self) -> dict[str, str]:
        """Tell for each living part whether it answers: its name, and ``ok`` or what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Everything a service function needs, in one hand."""

    settings: Settings
    database: Database
    queue: Queue
    objects: Objects
    compute: Compute
    clock: Callable[[], float]
    """Seconds since the epoch."""
    new_id: Callable[[], str]
    """A new id; ids made later sort later."""
    random: Callable[[], float]
    """A number from 0 to 1."""
