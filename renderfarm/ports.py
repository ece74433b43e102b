"""What the services and actors need from the outside, as Protocols. Adapters are wired in ``renderfarm.wiring``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

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
    TaskStatus,
    Unit,
    Worker,
)
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


@dataclass(frozen=True, kw_only=True)
class InWork:
    """What is being rendered of a task."""

    frames: float
    """Shares of frames that are done, summed up."""
    workers: int


# --- the database --------------------------------------------------------------------------------------------


class Projects(Protocol):
    def get(self, project_id: str) -> Project | None: ...
    def add(self, project: Project) -> None: ...


class Assets(Protocol):
    def get(self, asset_id: str) -> Asset | None: ...
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
        """Return id, state and frames of each unit of a task that has one of these frames."""

    def count(self, task_id: str, state: UnitState, unit_ids: Sequence[str] | None = None) -> int: ...
    def pinned_blenders(self) -> list[tuple[str, str]]:
        """Return each pair of a Blender version and the task whose ready units are bound to it."""

    def repin(self, task_id: str, old: str, new: str) -> None:
        """Bind a task's ready units to another Blender version."""

    def inspection(self, asset_id: str) -> Unit | None:
        """The inspect unit of an asset."""

    def confirm(self, units: Collection[Unit]) -> dict[str, Unit]:
        """Lock those units that still run the attempt with which they are given; return them as they are now.

        What never changes while a unit runs is taken from ``units``: much less is read than by ``lock_all``.
        """

    def placeable(self, now: float, limit: int, *, blenders: Collection[str], with_gpu: bool) -> list[ReadyUnit]:
        """Ready units for these Blenders whose backoff is over and whose task is not paused, first to go first.

        Args:
            with_gpu: also those that need a GPU.
        """

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
    @property
    def survey(self) -> Survey: ...


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


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that was put aside because nobody could deal with it."""

    id: str
    topic: str
    key: str
    reason: str
    died_at: float


class Queue(Protocol):
    """At least once, in about the order of publishing. Opens its connection when it is first needed.

    Every method raises FarmUnavailable while the queue does not answer; nothing is lost by that.
    """

    def publish(self, messages: Sequence[tuple[str, str]]) -> None:
        """Store (topic, key) pairs; return once they are safe."""

    def take(self, limit: int) -> list[Delivery]:
        """Take up to ``limit`` messages that nobody else holds; empty if there are none now."""

    def acknowledge(self, tags: Sequence[int]) -> None: ...
    def release(self, tags: Sequence[int]) -> None:
        """Give back what could not be dealt with now; it is taken again, and it does not count against it."""

    def bury(self, tags: Sequence[int], reason: str) -> None:
        """Put aside as dead letters what nobody can deal with.

        A message whose consumer has died with it ``DELIVERIES_MAX`` times is buried by the queue itself.
        """

    def on_arrival(self, wake: Callable[[], None]) -> None:
        """From now on call ``wake``, from any thread, when there may be something to take."""

    def dead(self, limit: int) -> list[DeadLetter]:
        """Return what was put aside, oldest first; it stays there."""

    def replay(self, ids: Collection[str] | None) -> int:
        """Put dead letters (None: all) back at the end of the queue; return how many those were."""

    def check(self) -> None:
        """Raise FarmUnavailable unless the queue answers."""

    def close(self) -> None: ...


#: After so many deliveries whose consumer died without an answer, a message is put aside.
DELIVERIES_MAX = 5


# --- the object store ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A blob as it lies in the store."""

    digest: str
    size_bytes: int
    stored_at: float
    """When it was last put, in seconds since the epoch by the store's clock."""


class Objects(Protocol):
    """Immutable blobs by the SHA-256 of their bytes, and published files by name.

    Every method raises FarmUnavailable while the store does not answer.
    """

    def put(self, source: Path) -> str:
        """Store a file's bytes, once however often they come; return their digest.

        Bytes that were there already count as put anew (``StoredBlob.stored_at``), so that no sweep takes them
        before whoever put them has written their digest down.

        Raises:
            StorageFull: there is no room; nothing is left behind.
        """

    def has(self, digest: str) -> bool: ...
    def open(self, digest: str) -> BinaryIO:
        """Open for reading; the stream can seek. Raises NotFound."""

    def fetch(self, digest: str, target: Path) -> None:
        """Write a blob to ``target``, which appears only when it is whole. Raises NotFound, StorageFull."""

    def publish(self, digest: str, name: str) -> None:
        """Let the blob appear as a whole under ``name`` (folders with ``/``), replacing what stood there."""

    def unpublish(self, name: str) -> None:
        """Remove the name if it is there; the blob stays."""

    def blobs(self) -> Iterator[StoredBlob]:
        """Yield every blob in the store."""

    def remove(self, digest: str) -> None:
        """Remove a blob if it is there."""

    def link(self, digest: str, *, name: str, media_type: str, lifetime_s: float) -> str | None:
        """Return a URL by which anybody may read the blob for a while, as a file ``name``; None: there is none."""

    def check(self) -> None:
        """Raise FarmUnavailable unless the store answers and may be written to."""

    def close(self) -> None: ...


# --- status cache and events ---------------------------------------------------------------------------------

#: A cached status is never older than this behind the database.
STATUS_AGE_MAX_S = 2.0


class Statuses(Protocol):
    """What people ask for most, kept so that the database need not be asked. May forget everything at any moment.

    No method raises while the cache does not answer: it is as if nothing were kept. ``check`` tells.
    """

    def get(self, task_id: str) -> TaskStatus | None:
        """Return a kept status that is at most ``STATUS_AGE_MAX_S`` behind the database; None: ask the database."""

    def at_hand(self, task_id: str) -> TaskStatus | None:
        """Return the same as ``get``, if that takes no waiting for anything outside of this process."""

    def now(self) -> float:
        """Return the time in seconds by a clock of this process that nobody sets, for ``keep``."""

    def keep(self, statuses: Sequence[TaskStatus], read_at: float) -> None:
        """Keep what was read from the database in a transaction that began at ``read_at`` (by ``now``).

        An older revision never takes the place of a newer one, nor of one that was outdated; among equal ones the
        later read counts. What was read too long ago, or not yet, is not kept.
        """

    def outdate(self, revisions: Mapping[str, int]) -> None:
        """Give no status below these revisions any more: the tasks have changed."""

    def kept(self, task_ids: Collection[str]) -> dict[str, int]:
        """Return the revision of every status that is kept for these tasks, however old; for checks.

        What was outdated is not kept any more: a revision below the database's is a cache that was not told.
        """

    def check(self) -> None:
        """Raise FarmUnavailable unless the cache answers."""

    def close(self) -> None: ...


class Events(Protocol):
    """Tells processes what others have committed, in any order. What it loses, readers find in the execution log."""

    def publish(self, entries: Sequence[LogEntry]) -> None:
        """Tell of committed entries of the execution log. Does not raise while nobody can be told."""

    def end(self) -> str:
        """Return the position behind the latest event. Raises FarmUnavailable."""

    def read(self, after: str, limit: int, wait_s: float) -> tuple[list[LogEntry], str]:
        """Return events behind a position and the position behind those; waits for the first, a second at most.

        Raises:
            FarmUnavailable: it does not answer.
        """

    def check(self) -> None:
        """Raise FarmUnavailable unless events get through."""

    def close(self) -> None: ...


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

    def leases(self) -> dict[str, tuple[Lease, ...]]:
        """Return for each worker that answers the leases that it holds. Raises FarmUnavailable: nobody could tell."""

    def answers(self) -> dict[str, str]:
        """Tell for each living part whether it answers: its name, and ``ok`` or what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Everything a service function needs, in one hand."""

    settings: Settings
    database: Database
    queue: Queue
    objects: Objects
    statuses: Statuses
    events: Events
    compute: Compute
    clock: Callable[[], float]
    """Seconds since the epoch."""
    new_id: Callable[[], str]
    """A new id; ids made later sort later."""
    random: Callable[[], float]
    """A number from 0 to 1."""
