"""The living side of the farm, and everything that a service function needs, in one hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from renderfarm.domain.leases import Lease
from renderfarm.ports.cache import Events, Statuses
from renderfarm.ports.database import Database
from renderfarm.ports.objects import Objects
from renderfarm.ports.queue import Queue
from renderfarm.settings import Settings


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
