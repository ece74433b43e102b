"""What a worker and the farm say to each other about one attempt."""

from __future__ import annotations

from dataclasses import dataclass

from renderfarm.domain.flaws import Glance


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on a unit, until it expires. Attempt and epoch fence off every later writer."""

    unit_id: str
    task_id: str | None
    """None for an inspection."""
    attempt: int
    epoch: int
    worker_id: str


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life of an attempt."""

    lease: Lease
    progress: float
    """Share of the frame in work that is done, 0 to 1."""
    note: str
    """What Blender is doing, for people."""


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """A file that a frame has left in the object store."""

    name: str
    """The file's own name, as Blender wrote it, in a folder of its own if it comes from a File Output node."""
    digest: str
    size_bytes: int
    glance: Glance | None = None
    """What a look at the picture has shown; None: nobody has looked, or could."""


@dataclass(frozen=True, kw_only=True)
class AttemptReport:
    """What a worker says of an attempt besides its result."""

    log_digest: str | None
    """Blob with Blender's output."""
    peak_memory_bytes: int | None
    """Peak resident memory of Blender."""
    devices: tuple[str, ...] = ()
    """What it has really rendered on."""
