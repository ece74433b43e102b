"""The supervisor: keeps each node's workers running, and knows what each of them does."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError

from actors.messages import Outcome, Pulse, WorkerInfo
from actors.places import WorkerPlace, worker_places
from actors.restarts import Restarts
from renderfarm.domain.failures import RULES, SET_ASIDE_AFTER, SET_ASIDE_S, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Worker
from renderfarm.domain.needs import share_bytes
from renderfarm.domain.policy import Slot
from renderfarm.domain.states import WorkerState
from renderfarm.services.placement import Placed
from renderfarm.settings import Settings

log = logging.getLogger(__name__)

#: A worker that has said nothing for so many times ``lease_s`` is killed.
_SILENCE_LEASES = 4
_SILENCE_MIN_S = 30.0
#: A worker at its start asks each Blender program for its version, and stores what its predecessor has left.
_START_SILENCE_S = 300.0
#: A worker of which it is known what it does is asked no more often than this: with short units, all that asking would
#: take more of a core than committing them.
_PING_EVERY_S = 2.0
_LATE_MAX_S = 3.0
#: Time in which the scheduler itself did not listen says nothing about a worker.
_LISTEN_GAP_MAX_S = 5.0
#: A call is answered once all of its leases have ended, and only then it is known how far the worker is: so a worker
#: that is given many has them in several calls, of so much work at most, and still has some while an answer is on its
#: way.
_CALL_MAX_S = 2.0
_LEASES_PER_CALL = 50

WorkerStarter = Callable[[Settings, WorkerPlace], Any]
"""Returns the actor's handle."""


@dataclass(kw_only=True)
class Member:
    """A worker as the supervisor knows it."""

    place: WorkerPlace
    handle: Any
    description: Any | None = None
    """The pending answer to ``describe``, until ``info`` is set."""
    info: WorkerInfo | None = None
    leases: dict[Lease, float | None] = field(default_factory=dict)
    """What it was given and has not ended, with the seconds that each will take, if that is known."""
    working_since_s: float = 0.0
    """When the first of them began, as far as is known; by the monotonic clock."""
    calls: list[Any] = field(default_factory=list)
    """The pending answers to ``execute``."""
    pulse: Any | None = None
    """The pending answer to ``ping``."""
    pinged_s: float = float("-inf")
    """When that was asked, by the monotonic clock."""
    pulse_is_current: bool = False
    """Nothing was dispatched since the ping was sent, so its answer is not older than what we know."""
    heard: bool = False
    """What the worker does is known from a current pulse. A former scheduler may have given it work."""
    silent_s: float = 0.0
    """For how long it has answered nothing."""
    open_scene: str | None = None
    consecutive_failures: int = 0
    set_aside_until: float | None = None
    set_aside_reason: str | None = None
    last_seen_at: float = 0.0

    @property
    def worker_id(self) -> str:
        return self.place.worker_id

    @property
    def memory_bytes(self) -> int:
        """Its share of its node's memory; 0: nobody knows."""
        return 0 if self.info is None else share_bytes(self.info.memory_bytes, self.place.workers)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A worker that has died."""

    member: Member
    reason: str


class Supervisor:
    """Used by the scheduler's one thread only, but for ``trouble``.

    Nothing here blocks for longer than a call to Ray's control store. Times are of the farm's clock, which people
    set; how long something takes is measured by ``monotonic``.
    """

    def __init__(
        self,
        settings: Settings,
        start_worker: WorkerStarter,
        wake: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members: dict[str, Member] = {}
        self._settings = settings
        self._start_worker = start_worker
        self._wake = wake
        self._monotonic = monotonic
        self._restarts = Restarts()
        self._wanted_ids: tuple[str, ...] = ()
        self._listened_s = monotonic()

    @property
    def trouble(self) -> str | None:
        """Why not all workers are in service, in one line; None when they are."""
        members = self.members
        absent = [worker_id for worker_id in self._wanted_ids if not _in_service(members.get(worker_id))]
        if not self._wanted_ids:
            return "no node with processors is known yet"
        known = (self._restarts.reason(worker_id) for worker_id in absent)
        return next((reason for reason in known if reason), f"{absent[0]} has not started yet" if absent else None)

    # --- keeping workers running ---------------------------------------------------------------------------

    def ensure_workers(self, now: float) -> None:
        """Start the workers that should be there and are not; those that a former scheduler started are adopted."""
        wanted = list(worker_places(ray.nodes(), self._settings.workers))
        self._wanted_ids = tuple(place.worker_id for place in wanted)
        for place in wanted:
            if place.worker_id in self.members or not self._restarts.may_start(place.worker_id, self._monotonic()):
                continue
            handle = self._start_worker(self._settings, place)
            self.members[place.worker_id] = Member(place=place, handle=handle, last_seen_at=now)

    # --- hearing from them -----------------------------------------------------------------------------------

    def listen(self, now: float) -> tuple[list[Outcome], list[Loss]]:
        """Take in what the workers have answered since the last time, and ask again how they are."""
        outcomes: list[Outcome] = []
        losses: list[Loss] = []
        earlier_s, self._listened_s = self._listened_s, self._monotonic()
        passed_s = min(_LISTEN_GAP_MAX_S, self._listened_s - earlier_s)
        for member in list(self.members.values()):
            member.silent_s += passed_s
            try:
                outcomes += self._listen_to(member, now)
            except (ActorDiedError, ActorUnschedulableError) as error:
                losses.append(self._lose(member, _one_line(error)))
                continue
            if member.silent_s > self._silence_max_s(member):
                ray.kill(member.handle, no_restart=True)
                losses.append(self._lose(member, f"it gave no sign of life for {member.silent_s:.0f} s and was killed"))
        return outcomes, losses

    def _silence_max_s(self, member: Member) -> float:
        return max(_SILENCE_LEASES * self._settings.lease_s, _SILENCE_MIN_S if member.info else _START_SILENCE_S)

    def _lose(self, member: Member, reason: str) -> Loss:
        del self.members[member.worker_id]
        was_in_service = _in_service(member)
        self._restarts.note_death(member.worker_id, reason, self._monotonic(), was_in_service=was_in_service)
        log.warning("worker %s is lost: %s", member.worker_id, reason)
        return Loss(member=member, reason=reason)

    def _listen_to(self, member: Member, now: float) -> list[Outcome]:
        if member.info is None:
            self._take_description(member, now)
        if member.info is None:
            return []
        outcomes = self._take_outcomes(member, now)
        self._take_pulse(member, now)
        return outcomes

    def _take_description(self, member: Member, now: float) -> None:
        if member.description is None:
            member.description = self._watched(member.handle.describe.remote())
        elif _is_done(member.description):
            reference, member.description = member.description, None
            member.info = self._answer(member, reference, now)
            if member.info is not None:
                self._restarts.note_service(member.worker_id)

    def _take_pulse(self, member: Member, now: float) -> None:
        if member.pulse is None:
            if member.heard and self._monotonic() - member.pinged_s < _PING_EVERY_S:
                return
            member.pinged_s = self._monotonic()
            # While something of ours runs there, only that the worker answers is of interest.
            member.pulse_is_current = not member.calls
            member.pulse = member.handle.ping.remote()
            if not member.heard:
                self._watched(member.pulse)
        elif _is_done(member.pulse):
            reference, member.pulse = member.pulse, None
            pulse: Pulse | None = self._answer(member, reference, now)
            if pulse is not None and member.pulse_is_current:
                member.heard = True
                member.leases, member.open_scene = dict.fromkeys(pulse.leases), pulse.open_scene

    def _take_outcomes(self, member: Member, now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for reference in [call for call in member.calls if _is_done(call)]:
            member.calls.remove(reference)
            # Without an answer they may still be at work: the leases stand until a pulse says otherwise.
            outcomes += self._answer(member, reference, now) or []
        for outcome in outcomes:
            member.leases.pop(outcome.lease, None)
            member.open_scene = outcome.open_scene
            if outcome.since_turn_s is not None:  # it has been busy with the next since then, maybe for seconds
                member.working_since_s = max(member.working_since_s, self._monotonic() - outcome.since_turn_s)
            self._judge(member, outcome.failure, now)
        return outcomes

    def _answer(self, member: Member, reference: Any, now: float) -> Any:
        """Return what a worker has answered; None if it could not be reached, or could not do as it was told.

        Raises:
            ActorDiedError, ActorUnschedulableError: it is no more.
        """
        try:
            answer = ray.get(reference)
        except (ActorDiedError, ActorUnschedulableError):
            raise
        except RayError as error:
            log.warning("no answer from worker %s: %s", member.worker_id, _one_line(error))
            # What it does is unknown, until it has answered a question that is asked from now on.
            member.heard = member.pulse_is_current = False
            return None
        member.silent_s, member.last_seen_at = 0.0, now
        return answer

    def _judge(self, member: Member, failure: FailureKind | None, now: float) -> None:
        """Set a worker aside that keeps failing while another does not: its node may be broken."""
        if failure is None:
            member.consecutive_failures = 0
            return
        if not (RULES[failure].blames_worker and RULES[failure].is_recorded):
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
                slots.append(_slot(member, member.info, self._monotonic()))
        return slots

    @property
    def least_memory_bytes(self) -> int:
        """The memory of the worker in service that has the least."""
        return min((member.memory_bytes for member in self.members.values() if member.info is not None), default=0)

    def tasks(self) -> set[str]:
        """Return the tasks of which workers have anything to do."""
        return {lease.task_id for member in self.members.values() for lease in member.leases if lease.task_id}

    def nodes(self) -> dict[str, str]:
        """Return the node of each worker."""
        return {member.worker_id: member.info.node for member in self.members.values() if member.info is not None}

    def dispatch(self, placed: Sequence[Placed]) -> None:
        """Hand durable leases to their workers."""
        by_worker: dict[str, list[Placed]] = defaultdict(list)
        for one in placed:
            by_worker[one.lease.worker_id].append(one)
        for worker_id, ours in by_worker.items():
            member = self.members[worker_id]
            if not member.leases:
                member.working_since_s = self._monotonic()
            member.leases.update((one.lease, one.estimate_s) for one in ours)
            member.pulse_is_current = False
            for leases in _calls(ours):
                member.calls.append(self._watched(member.handle.execute.remote(leases)))

    def cancel(self, leases: Iterable[Lease]) -> None:
        """Tell workers that attempts are not wanted any more."""
        for worker_id, member in self.members.items():
            unwanted = [lease for lease in leases if lease.worker_id == worker_id]
            if unwanted:
                member.handle.cancel.remote(unwanted)

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
        state=WorkerState.BUSY if member.leases else WorkerState.IDLE,
        blender_versions=info.blender_versions,
        threads=info.threads,
        memory_bytes=info.memory_bytes,
        gpus=member.place.gpus,
        labels=dict(member.place.labels),
        open_scene=member.open_scene,
        unit_id=next((lease.unit_id for lease in member.leases), None),
        consecutive_failures=member.consecutive_failures,
        set_aside_until=member.set_aside_until,
        set_aside_reason=member.set_aside_reason,
        last_seen_at=member.last_seen_at,
        started_at=info.started_at,
    )


def _calls(placed: Sequence[Placed]) -> Iterator[list[Lease]]:
    """Cut what a worker is given into calls, in order."""
    leases: list[Lease] = []
    work_s = 0.0
    for one in placed:
        estimate_s = _CALL_MAX_S if one.estimate_s is None else one.estimate_s
        if leases and (work_s + estimate_s > _CALL_MAX_S or len(leases) >= _LEASES_PER_CALL):
            yield leases
            leases, work_s = [], 0.0
        leases.append(one.lease)
        work_s += estimate_s
    yield leases


def _slot(member: Member, info: WorkerInfo, now_s: float) -> Slot:
    left_s = sum(estimate_s or 0.0 for estimate_s in member.leases.values()) - (now_s - member.working_since_s)
    is_estimated = all(estimate_s is not None for estimate_s in member.leases.values())
    # Of one that is late by much it is not known when it will be done.
    is_known = member.heard and is_estimated and left_s > -_LATE_MAX_S
    return Slot(
        worker_id=member.worker_id,
        free=member.heard and not member.leases and not member.calls,
        blenders=frozenset(info.blender_versions),
        gpus=member.place.gpus,
        open_scene=member.open_scene,
        memory_bytes=member.memory_bytes,
        units=len(member.leases),
        backlog_s=max(0.0, left_s) if is_known else math.inf,
    )


def _in_service(member: Member | None) -> bool:
    return member is not None and member.info is not None


def _is_done(reference: Any) -> bool:
    done, _ = ray.wait([reference], timeout=0)
    return bool(done)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
