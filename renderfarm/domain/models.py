"""The things the farm keeps: projects, assets, tasks, units, attempts, outputs, workers, log entries.

Plain values; times are seconds since the epoch in UTC. Change goes through ``renderfarm.services`` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.flaws import Flaw
from renderfarm.domain.parts import Part
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.states import AssetState, AttemptState, TaskState, UnitState, WorkerState


class UnitKind(StrEnum):
    INSPECT = "inspect"
    RENDER = "render"
    VERIFY = "verify"
    """Render a frame cold, and compare it with what a warm session has made of it."""
    MERGE = "merge"
    """Put the parts of a frame together."""
    JUDGE = "judge"
    """Look for frames that are unlike their neighbours, and let them be rendered once more."""
    ENCODE = "encode"
    """Make a movie of a camera's frames."""


#: Kinds of units that render frames or parts of them, and need the memory for it.
RENDERING = (UnitKind.RENDER, UnitKind.VERIFY)


class OutputRole(StrEnum):
    """What a committed file is of its task."""

    PICTURE = "picture"
    PART = "part"
    """Of a frame; it goes once the frame is merged, and is never published."""
    MOVIE = "movie"


@dataclass(frozen=True, kw_only=True)
class Project:
    id: str
    name: str
    created_at: float


@dataclass(frozen=True, kw_only=True)
class AssetFile:
    """One file of an asset."""

    path: str
    """Relative to the asset's root, with ``/``; never leaves it."""
    digest: str
    """SHA-256 of the bytes, in hexadecimal: the blob's name in the object store."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Asset:
    """An uploaded, immutable, versioned set of files."""

    id: str
    project_id: str
    owner: str
    name: str
    version: int
    """1, 2, … for each name in a project."""
    main_file: str
    """The .blend file that is rendered, one of ``files``."""
    files: tuple[AssetFile, ...]
    file_version: str
    """The Blender that wrote the main file, from its header, for example ``4.5``."""
    state: AssetState
    facts: SceneFacts | None
    failure: Failure | None
    """Why the asset was rejected."""
    created_at: float

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a user asks for: a scene, frames, cameras, output settings."""

    id: str
    project_id: str
    owner: str
    name: str
    asset_id: str
    settings: RenderSettings
    priority: int
    """Higher goes first."""
    state: TaskState
    revision: int
    """Rises with every change of the task or its units."""
    units_total: int
    units_open: int
    """Units that have not ended."""
    units_failed: int
    frames_total: int
    """Frames times cameras."""
    frames_done: int
    parts_done: float
    """Frames' worth of parts that are done and not merged yet."""
    render_seconds: float
    """Sum over all committed frames."""
    cold: bool
    """A warm frame was not what it is when rendered cold: nothing is kept between this task's frames any more."""
    verifications: int
    """Warm frames that were chosen to be rendered cold as well."""
    failure: Failure | None
    """The first failure that ended a unit for good, or why the task as a whole failed."""
    created_at: float
    started_at: float | None
    finished_at: float | None
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """What people ask for most, and programs every second."""

    task_id: str
    project_id: str
    status: TaskState
    progress: float
    """0 to 100, frames in work counted by their share."""
    frames_done: int
    frames_total: int
    eta_s: float | None
    """Seconds until the end at the present pace; None when there is no pace yet."""
    failure: Failure | None
    revision: int


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest piece placed on a node."""

    id: str
    kind: UnitKind
    project_id: str
    task_id: str | None
    """None for an ``inspect`` unit, which belongs to its asset."""
    asset_id: str
    position: int
    """Order within its task."""
    camera: str | None
    """The camera to render from; None: the scene's active one."""
    folder: str
    """Folder of the outputs below the task's own, ``""`` or a camera's name made safe."""
    blender: str
    """The Blender version that all of the task's units use, so that its frames match."""
    needs_gpu: bool
    frames: tuple[int, ...]
    frames_done: int
    part: Part | None
    """The part of its frame that it renders; None: all of it."""
    feeds: str | None
    """The unit that waits for what this one makes."""
    inputs_open: int
    """Units for which this one still waits."""
    share: float
    """How much of a frame's work it is: 1 for a frame, 0 for what is no part of the picture."""
    state: UnitState
    priority: int
    attempt: int
    """Number of the latest attempt, 0 before the first: the fence against late writers."""
    epoch: int
    """Epoch of the scheduler that placed the latest attempt."""
    worker_id: str | None
    lease_expires_at: float | None
    not_before: float
    """Backoff: not placed before this time."""
    progress: float
    """Share of the frame in work that is done, 0 to 1."""
    progress_note: str
    """What Blender is doing, for people: ``Sample 12/64``."""
    failed_on: tuple[str, ...]
    """Workers that get it only when no other can: on which an attempt failed for a reason of the worker's own or of
    unknown cause, or whose work it verifies."""
    failures: tuple[FailureKind, ...]
    """Kinds of the failed attempts since the unit was last (re)started, in order."""
    failure: Failure | None
    """The latest failure."""
    memory_bytes: int = 0
    """Memory that it is known to need; 0: nothing is known."""
    created_at: float


@dataclass(frozen=True, kw_only=True)
class ReadyUnit:
    """As much of a ready unit as it takes to place it: the scheduler reads many more than it places."""

    id: str
    kind: UnitKind
    project_id: str
    task_id: str | None
    asset_id: str
    position: int
    priority: int
    blender: str
    needs_gpu: bool
    is_part: bool
    """It renders a part of a frame."""
    frames_left: int
    attempt: int
    failed_on: tuple[str, ...]
    failures: int
    """Failed attempts since it was last (re)started."""
    memory_bytes: int
    """Memory that it is known to need; 0: nothing is known."""


@dataclass(frozen=True, kw_only=True)
class AttemptStep:
    """What becomes of an attempt: it gets on, or it ends."""

    unit_id: str
    number: int
    render_seconds: float = 0.0
    """To be added to what it has."""
    state: AttemptState | None = None
    """None: it goes on."""
    failure: Failure | None = None
    log_digest: str | None = None
    """None: what it has stays."""
    peak_memory_bytes: int | None = None
    devices: tuple[str, ...] | None = None
    finished_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of one unit on one worker."""

    unit_id: str
    number: int
    epoch: int
    worker_id: str
    node: str
    blender_version: str | None
    state: AttemptState
    failure: Failure | None
    log_digest: str | None
    """Blob with Blender's output; None while it runs."""
    peak_memory_bytes: int | None
    devices: tuple[str, ...] | None = None
    """What it has really rendered on, such as ``OPTIX: NVIDIA H200``; None: nobody knows, or not yet."""
    render_seconds: float
    started_at: float
    finished_at: float | None


@dataclass(frozen=True, kw_only=True)
class Output:
    """One committed file of a task."""

    id: str
    task_id: str
    unit_id: str
    attempt: int
    frame: int
    camera: str | None
    role: OutputRole
    name: str
    """Path below the task's output folder, for example ``0001.png`` or ``Front/0001.png``."""
    digest: str
    size_bytes: int
    media_type: str
    render_seconds: float
    """Of a merged frame: its parts' and the merge's."""
    committed_at: float
    published: bool
    """The file stands under its final name in the object store."""
    warm: bool
    """Rendered with what the session had kept of earlier frames."""
    flaws: tuple[Flaw, ...] | None = None
    """What looks wrong with the picture by itself; None: nobody has looked, or could."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One slot on one Ray node, as the scheduler last saw it."""

    id: str
    node: str
    address: str
    """The node's IP address."""
    pid: int
    state: WorkerState
    blender_versions: tuple[str, ...]
    threads: int
    memory_bytes: int
    """Memory of the node, which its workers share."""
    gpus: int
    """Its own, which no other worker sees."""
    labels: dict[str, str]
    open_scene: str | None
    """Asset id of the scene its session has open."""
    unit_id: str | None
    consecutive_failures: int
    set_aside_until: float | None
    set_aside_reason: str | None
    last_seen_at: float
    started_at: float


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One line of the execution log: what changed, from what, to what, why and by whom."""

    id: int
    """Rises; also the id of the event in the event stream."""
    at: float
    project_id: str
    asset_id: str | None
    task_id: str | None
    unit_id: str | None
    attempt: int | None
    event: str
    """For example ``task.state``, ``unit.state``, ``frame.committed``, ``worker.set_aside``."""
    old: str | None
    new: str | None
    reason: str
    actor: str
    """Who did it: ``user:NAME``, ``scheduler``, ``worker:ID``."""
    revision: int | None
    """The task's revision after the change."""
