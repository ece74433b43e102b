"""The supervisor: keeps each node's workers running, and knows what each of them does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError

from actors.messages import Outcome, Pulse, WorkerInfo
from renderfarm.domain.failures import RULES, SET_ASIDE_AFTER, SET_ASIDE_S, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Worker
from renderfarm.domain.policy import Slot
from renderfarm.domain.states import WorkerState
from renderfarm.settings import Settings

log = logging.getLogger(__name__)

_RESTART_AFTER_S = 3.0
WorkerStarter = Callable[[Settings, str, str, str, int], Any]
"""(settings, worker id, node id, node address, threads) → actor handle."""


@dataclass(kw_only=True)
class Member:
    """A worker as the supervisor knows it."""

    worker_id: str
    handle: Any
    description: Any
    """The pending answer to ``describe``; done once ``info`` is set."""
    info: WorkerInfo | None = None
    gpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    lease: Lease | None = None
    outcome: Any | None = None
    """The pending answer to ``execute``."""
    pulse: Any | None = None
    """The pending answer to ``ping``."""
    pulse_is_current: bool = False
    """Nothing was dispatched since the ping was sent, so its answer is not older than what we know."""
    heard: bool = False
    """A ping was answered: what the worker does is known. A former scheduler may have given it work."""
    open_scene: str | None = None
    consecutive_failures: int = 0
    set_aside_until: float | None = None
    set_aside_reason: str | None = None
    last_seen_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A worker that has died."""

    member: Member
    reason: str


class Supervisor:
    """Used by the scheduler's one thread only. Nothing here blocks for longer than a call to Ray's control store."""

    def __init__(self, settings: Settings, start_worker: WorkerStarter, wake: Callable[[], None]) -> None:
        self.members: dict[str, Member] = {}
        self._settings = settings
        self._start_worker = start_worker
        self._wake = wake
        self._restart_at: dict[str, float] = {}

    # --- keeping workers running ---------------------------------------------------------------------------

    def ensure_workers(self, now: float) -> None:
        """Start the workers that should be there and are not; those that a former scheduler started are adopted."""
        for worker_id, node, threads in self._wanted():
            if worker_id in self.members or self._restart_at.get(worker_id, 0.0) > now:
                continue
            address = node["NodeManagerAddress"]
            handle = self._start_worker(self._settings, worker_id, node["NodeID"], address, threads)
            self.members[worker_id] = Member(
                worker_id=worker_id,
                handle=handle,
                description=self._watched(handle.describe.remote()),
                gpus=int(node["Resources"].get("GPU", 0)),
                labels=dict(node.get("Labels") or {}),
                last_seen_at=now,
            )

    def _wanted(self) -> Iterator[tuple[str, dict[str, Any], int]]:
        """Yield each worker that should run: its id, its node, its threads."""
        taken: set[str] = set()
        for node in sorted(ray.nodes(), key=lambda node: str(node["NodeID"])):
            if not node["Alive"]:
                continue
            host = node["NodeManagerHostname"]
            name = host if host not in taken else f"{host}-{node['NodeID'][:6]}"
            taken.add(host)
            threads = max(1, int(node["Resources"].get("CPU", 1)) // self._settings.workers)
            for slot in range(self._settings.workers):
                yield f"{name}-{slot}", node, threads

    # --- hearing from them -----------------------------------------------------------------------------------

    def listen(self, now: float) -> tuple[list[Outcome], list[Loss]]:
        """Take in what the workers have answered since the last time, and ask again how they are."""
        outcomes: list[Outcome] = []
        losses: list[Loss] = []
        for member in list(self.members.values()):
            try:
                outcome = self._listen_to(member, now)
            except RayActorError as error:
                if not isinstance(error, ActorDiedError):
                    continue  # unavailable: what became of it is unknown, its lease will tell
                losses.append(Loss(member=member, reason=_one_line(error)))
                del self.members[member.worker_id]
                self._restart_at[member.worker_id] = now + _RESTART_AFTER_S
            else:
                if outcome is not None:
                    outcomes.append(outcome)
        return outcomes, losses

    def _listen_to(self, member: Member, now: float) -> Outcome | None:
        if member.info is None:
            if _is_done(member.description):
                member.info = ray.get(member.description)
                member.last_seen_at = now
            return None
        outcome = self._take_outcome(member, now)
        self._take_pulse(member, now)
        return outcome

    def _take_pulse(self, member: Member, now: float) -> None:
        if member.pulse is None:
            # While something of ours runs there, only that the worker answers is of interest.
            member.pulse_is_current = member.outcome is None
            member.pulse = member.handle.ping.remote()
            if not member.heard:
                self._watched(member.pulse)
        elif _is_done(member.pulse):
            pulse: Pulse = ray.get(member.pulse)
            member.pulse = None
            member.last_seen_at = now
            member.heard = True
            if member.pulse_is_current:
                member.lease, member.open_scene = pulse.lease, pulse.open_scene

    def _take_outcome(self, member: Member, now: float) -> Outcome | None:
        if member.outcome is None or not _is_done(member.outcome):
            return None
        reference, member.outcome, member.lease = member.outcome, None, None
        try:
            outcome: Outcome = ray.get(reference)
        except RayActorError:
            raise
        except RayError as error:
            # The worker could not even write the failure down; the lease expires and the unit is tried again.
            log.error("worker %s failed outside an attempt: %s", member.worker_id, _one_line(error))
            return None
        member.last_seen_at = now
        member.open_scene = outcome.open_scene
        self._judge(member, outcome.failure, now)
        return outcome

    def _judge(self, member: Member, failure: FailureKind | None, now: float) -> None:
        """Set a worker aside that keeps failing while another does not: its node may be broken."""
        if failure is None:
            member.consecutive_failures = 0
            return
        if not RULES[failure].blames_worker:
            return
        member.consecutive_failures += 1
        others = [other for other in self.members.values() if other is not member and other.info is not None]
        healthy = any(
            other.consecutive_failures < SET_ASIDE_AFTER and other.set_aside_until is None for other in others
        )
        if member.consecutive_failures >= SET_ASIDE_AFTER and healthy:
            member.set_aside_until = now + SET_ASIDE_S
            member.set_aside_reason = f"{member.consecutive_failures} failures in a row, the last one: {failure}"
            log.warning("worker %s is set aside: %s", member.worker_id, member.set_aside_reason)

    # --- giving them work ------------------------------------------------------------------------------------

    def slots(self, now: float) -> list[Slot]:
        """Return the workers in service, as the policy wants to see them."""
        slots: list[Slot] = []
        for member in self.members.values():
            if member.set_aside_until is not None and member.set_aside_until <= now:
                member.set_aside_until = member.set_aside_reason = None
                member.consecutive_failures = 0
            if member.info is not None and member.set_aside_until is None:
                slots.append(_slot(member, member.info))
        return slots

    def nodes(self) -> dict[str, str]:
        """Return the node of each worker."""
        return {member.worker_id: member.info.node for member in self.members.values() if member.info is not None}

    def dispatch(self, lease: Lease) -> None:
        """Hand a durable lease to its worker."""
        member = self.members[lease.worker_id]
        member.lease = lease
        member.pulse_is_current = False
        member.outcome = self._watched(member.handle.execute.remote(lease))

    def cancel(self, lease: Lease) -> None:
        """Tell a worker that an attempt is not wanted any more."""
        self.members[lease.worker_id].handle.cancel.remote(lease)

    def _watched(self, reference: Any) -> Any:
        """Wake the scheduler as soon as the answer is there."""
        reference.future().add_done_callback(lambda _future: self._wake())
        return reference


def as_worker(member: Member) -> Worker | None:
    """Return what the farm writes down about a worker; None while it has not said what it is."""
    info = member.info
    if info is None:
        return None
    return Worker(
        id=member.worker_id,
        node=info.node,
        address=info.address,
        pid=info.pid,
        state=WorkerState.IDLE if member.lease is None else WorkerState.BUSY,
        blender_versions=info.blender_versions,
        threads=info.threads,
        memory_bytes=info.memory_bytes,
        gpus=member.gpus,
        labels=member.labels,
        open_scene=member.open_scene,
        unit_id=None if member.lease is None else member.lease.unit_id,
        consecutive_failures=member.consecutive_failures,
        set_aside_until=member.set_aside_until,
        set_aside_reason=member.set_aside_reason,
        last_seen_at=member.last_seen_at,
        started_at=info.started_at,
    )


def _slot(member: Member, info: WorkerInfo) -> Slot:
    return Slot(
        worker_id=member.worker_id,
        free=member.heard and member.lease is None and member.outcome is None,
        blenders=frozenset(info.blender_versions),
        gpus=member.gpus,
        open_scene=member.open_scene,
    )


def _is_done(reference: Any) -> bool:
    done, _ = ray.wait([reference], timeout=0)
    return bool(done)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
