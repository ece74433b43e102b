"""As much of Ray as the supervisor sees: nodes, actors that answer when the test says so, and a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError

from actors.messages import Outcome, Pulse, WorkerInfo
from actors.places import WorkerPlace
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.services.placement import Placed
from renderfarm.settings import Settings

INFO = WorkerInfo(
    node="vm",
    address="127.0.0.1",
    pid=1,
    blender_versions=("4.5.15",),
    threads=1,
    memory_bytes=1 << 30,
    started_at=0.0,
)
NODE = {
    "NodeID": "n0",
    "Alive": True,
    "NodeManagerHostname": "vm",
    "NodeManagerAddress": "127.0.0.1",
    "Resources": {"CPU": 2.0},
}
UNAVAILABLE = ActorUnavailableError("cannot be reached", None)
DEAD = ActorDiedError()
IDLE = Pulse(leases=(), open_scene=None)


def lease(attempt: int = 1) -> Lease:
    return Lease(unit_id="unit", task_id="task", attempt=attempt, epoch=1, worker_id="vm-0")


def placed(attempt: int = 1, estimate_s: float | None = None) -> Placed:
    return Placed(lease=lease(attempt), estimate_s=estimate_s)


def outcome(failure: FailureKind | None = None) -> Outcome:
    return Outcome(lease=lease(), failure=failure, open_scene="scene")


class Reference:
    """An answer that comes when the test gives it."""

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None

    def give(self, value: Any) -> None:
        self.done, self._value = True, value

    def get(self) -> Any:
        assert self.done, "the supervisor must not wait"
        if isinstance(self._value, Exception):
            raise self._value
        return self._value

    def future(self) -> Reference:
        return self

    def add_done_callback(self, _callback: Callable[[Any], None]) -> None:
        """Nobody needs to be woken here."""


class Method:
    def __init__(self) -> None:
        self.calls: list[Reference] = []

    def remote(self, *_arguments: object) -> Reference:
        self.calls.append(Reference())
        return self.calls[-1]

    @property
    def last(self) -> Reference:
        return self.calls[-1]


class Handle:
    def __init__(self) -> None:
        self.describe, self.ping, self.execute, self.cancel = Method(), Method(), Method(), Method()


@dataclass
class FakeRay:
    all_nodes: list[dict[str, Any]] = field(default_factory=lambda: [NODE])
    handles: list[Handle] = field(default_factory=list)
    places: list[WorkerPlace] = field(default_factory=list)
    killed: list[Handle] = field(default_factory=list)
    now: float = 1000.0

    def start_worker(self, _settings: Settings, place: WorkerPlace) -> Handle:
        self.handles.append(Handle())
        self.places.append(place)
        return self.handles[-1]

    def nodes(self) -> list[dict[str, Any]]:
        return self.all_nodes

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Reference], list[Reference]]:
        assert timeout == 0
        return [reference for reference in references if reference.done], []

    def get(self, reference: Reference) -> Any:
        return reference.get()

    def kill(self, handle: Handle, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(handle)
