"""What scheduler and workers say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """What a worker is, said once when it starts."""

    node: str
    address: str
    pid: int
    blender_versions: tuple[str, ...]
    threads: int
    memory_bytes: int
    started_at: float


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """What a worker does at the moment."""

    leases: tuple[Lease, ...]
    """All that it was given and has not ended."""
    open_scene: str | None
    """Asset id of the scene that its session has open."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended. The database knows it already; this is for the worker's record."""

    lease: Lease
    failure: FailureKind | None
    """None: it succeeded, or its result was not wanted any more."""
    open_scene: str | None
    asset_id: str | None = None
    """What it rendered, as far as it came to that."""
    frames: int = 0
    """Frames rendered."""
    render_seconds: float = 0.0
    """What they took."""
    preparation_seconds: float | None = None
    """How much of a cold frame went by before its first samples, at least; None: nobody knows."""
    open_seconds: float | None = None
    """What opening its file took; None: it was open."""
    peak_memory_bytes: int = 0
    """Peak resident memory of Blender; 0: nobody knows."""
    since_turn_s: float | None = None
    """How long ago it let the next one have the session; None: it had no turn."""
