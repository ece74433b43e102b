"""The scheduler: one thread that looks at the truth in the database, and acts on it.

It keeps nothing that it could not find out again, so it may die at any moment.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray

from actors.messages import Outcome
from actors.supervisor import Loss, Supervisor, WorkerStarter, as_worker
from actors.upkeep import Upkeep
from renderfarm.domain.models import Worker
from renderfarm.domain.needs import Needs
from renderfarm.domain.paces import Paces
from renderfarm.domain.policy import AHEAD_MAX_S
from renderfarm.domain.splitting import is_worth_cutting
from renderfarm.domain.states import WorkerState
from renderfarm.errors import Deposed, FarmUnavailable, StorageFull
from renderfarm.ports import Farm
from renderfarm.services import admission, last_frames, outputs, placement

log = logging.getLogger(__name__)

_RECORD_EVERY_S = 5.0
_PUBLISH_AFTER_S = 30.0
#: How often in the time of a lease the scheduler looks around unasked: for leases that have run out, and for what it
#: should have been woken for.
_LOOKS_PER_LEASE = 3
_STOP_WAIT_S = 10.0
_CRASHED = 70


class Scheduler:
    """Started once; woken whenever there may be something to do; hears from the workers every ``tick_s`` anyway."""

    def __init__(self, farm: Farm, start_worker: WorkerStarter) -> None:
        self._farm = farm
        self._something_to_do = threading.Event()
        self._stopping = threading.Event()
        self._supervisor = Supervisor(farm.settings, start_worker, self._something_to_do.set)
        self._recorded: dict[str, Worker] = {}
        self._epoch = 0
        self._upkeep: Upkeep | None = None
        self._pinned_to: frozenset[str] = frozenset()
        self._asked = threading.Event()
        self._in_service: frozenset[str] = frozenset()
        self._missed: dict[str, str] = {}
        """What could not be done for now, by its name, and why."""
        self._looked_around_s = self._recorded_s = float("-inf")
        self._last_tick = (time.monotonic(), farm.clock())
        self._steady_from = 0.0
        self._paces = Paces()
        self._needs = Needs()
        self._backoff_ends_at: float | None = None
        self._others_may_be_ready = True
        """There may be other ready units than at the last look, or other backoffs."""
        self._ahead_s = AHEAD_MAX_S
        """Work that each worker may have, as the last look at the ready units has found it."""
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin. Nothing here fails: Ray does not restart an actor whose constructor raises."""
        self._farm.queue.on_arrival(self.wake)
        self._thread.start()

    def wake(self) -> None:
        """Look around now: people or the queue have something new."""
        self._asked.set()
        self._something_to_do.set()

    def health(self) -> str:
        """Return ``ok``, or in one line what is wrong."""
        if not self._thread.is_alive():
            return self._trouble or "the scheduler's thread has ended"
        return self._trouble or self._supervisor.trouble or "ok"

    def stop(self) -> None:
        """Place nothing more, and end every worker and its Blender."""
        self._stopping.set()
        if self._upkeep is not None:
            self._upkeep.stop()
        self.wake()
        self._thread.join(_STOP_WAIT_S)
        stops = [member.handle.stop.remote() for member in self._supervisor.members.values()]
        ray.wait(stops, num_returns=len(stops), timeout=_STOP_WAIT_S) if stops else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause_s = self._farm.settings.tick_s
            try:
                if not self._epoch:
                    self._take_over()
                self._tick()
                pause_s = self._pause_s()
                self._trouble = None
            except Deposed as error:
                self._trouble = f"not in charge: {error}"
                log.warning("%s", self._trouble)
                return
            except (FarmUnavailable, StorageFull) as error:
                self._trouble = str(error)
                self._asked.set()  # what was left undone is still to be done
                log.warning("%s", error)
            except Exception:
                # A bug: let Ray start a new scheduler, which rebuilds everything from the database.
                log.exception("the scheduler failed")
                os._exit(_CRASHED)
            self._something_to_do.wait(pause_s)
            self._something_to_do.clear()

    def _take_over(self) -> None:
        """Depose whoever scheduled before."""
        self._epoch = placement.take_leadership(self._farm, f"{socket.gethostname()}:{os.getpid()}")
        self._upkeep = Upkeep(self._farm, self._epoch)
        log.info("scheduling begins, epoch %s", self._epoch)

    def _pause_s(self) -> float:
        """Return how long nothing can happen that nobody would wake us for."""
        now = self._farm.clock()
        if self._others_may_be_ready:
            with self._farm.database.read() as tx:
                self._backoff_ends_at = tx.units.next_backoff(now)
            self._others_may_be_ready = False
        tick_s = self._farm.settings.tick_s
        return tick_s if self._backoff_ends_at is None else min(tick_s, max(0.01, self._backoff_ends_at - now))

    def _tick(self) -> None:
        """Hear from the workers and give them work; what else there is to look after, when asked or now and then."""
        farm, supervisor, epoch = self._farm, self._supervisor, self._epoch
        now = farm.clock()
        is_steady = self._time_is_steady()
        outcomes, losses = supervisor.listen(now)
        self._learn(outcomes, losses)
        slots = supervisor.slots(now)
        in_service = frozenset(slot.worker_id for slot in slots)
        pause_s = max(farm.settings.tick_s, farm.settings.lease_s / _LOOKS_PER_LEASE)
        is_time = time.monotonic() - self._looked_around_s >= pause_s
        if in_service != self._in_service:
            self._record_workers(now)  # admitting asks the database which Blenders there are
        if is_time or self._asked.is_set() or in_service != self._in_service:
            self._asked.clear()
            self._in_service = in_service
            self._look_around(now, is_steady=is_steady)
            self._looked_around_s = time.monotonic()
            self._others_may_be_ready = True
        if any(is_worth_cutting(self._paces.of_task(task_id)) for task_id in supervisor.tasks()):
            last_frames.cut_last_frames(farm, epoch, slots, self._paces)
        if self._others_may_be_ready:
            self._ahead_s = AHEAD_MAX_S
        look = placement.place_units(farm, epoch, slots, supervisor.nodes(), self._paces, self._ahead_s)
        self._ahead_s = look.ahead_s
        supervisor.dispatch(look.placed)
        if time.monotonic() - self._recorded_s >= farm.settings.tick_s / 2:
            self._record_workers(now)
            self._recorded_s = time.monotonic()

    def _learn(self, outcomes: Sequence[Outcome], losses: Sequence[Loss]) -> None:
        """Take in what has become of attempts and workers."""
        farm, epoch = self._farm, self._epoch
        # A failure begins a backoff, and one that is over makes way for the next.
        failed = any(outcome.failure is not None for outcome in outcomes)
        over = self._backoff_ends_at is not None and self._backoff_ends_at <= farm.clock()
        self._others_may_be_ready |= bool(losses) or failed or over
        least_bytes = self._supervisor.least_memory_bytes
        for outcome in outcomes:
            if outcome.lease.task_id is not None and outcome.asset_id is not None:
                self._paces.note(
                    outcome.lease.task_id,
                    outcome.asset_id,
                    outcome.frames,
                    outcome.render_seconds,
                    outcome.preparation_seconds,
                    outcome.open_seconds,
                )
                self._needs.note(outcome.lease.task_id, outcome.peak_memory_bytes, least_bytes)
        if losses:
            self._asked.set()  # others are to be started in their places
        for loss in losses:
            placement.lose_worker(farm, epoch, loss.member.worker_id, loss.reason)
        for task_id, memory_bytes in self._needs.news.items():
            placement.raise_needs(farm, epoch, task_id, memory_bytes)
            self._needs.note_written(task_id)

    def _look_around(self, now: float, *, is_steady: bool) -> None:
        """Do what is to be done now and then. A service that is away keeps nothing from being done without it."""
        farm, epoch = self._farm, self._epoch
        self._supervisor.ensure_workers(now)
        if is_steady:
            placement.expire_leases(farm, epoch)
        self._repin_after_change()
        if self._go_on_without("the queue", admission.relay_outbox, farm, epoch):
            self._go_on_without("the queue", admission.admit_queued, farm, epoch)
        else:
            self._go_on_without("the queue", admission.admit_unsent, farm, epoch)
        self._cancel_unwanted()
        self._go_on_without("the object store", outputs.publish_leftovers, farm, _PUBLISH_AFTER_S)

    def _go_on_without(self, service: str, step: Callable[..., int], *arguments: Any) -> bool:
        """Take a step that may need a service, and tell whether it could be; else it is taken later.

        A database that is away is told by the other steps.
        """
        try:
            done = step(*arguments)
        except (FarmUnavailable, StorageFull) as error:
            if self._missed.get(step.__name__) != str(error):
                log.warning("without %s for now: %s", service, error)
            self._missed[step.__name__] = str(error)
            return False
        if self._missed.pop(step.__name__, None):
            log.info("%s is back", service)
        if done:
            self.wake()  # there may be more
        return True

    def _repin_after_change(self) -> None:
        """Look for units whose Blender is gone, once all workers are here and whenever their Blenders change."""
        slots = self._supervisor.slots(self._farm.clock())
        versions = frozenset(version for slot in slots for version in slot.blenders)
        if self._supervisor.trouble is None and versions and versions != self._pinned_to:
            self._record_workers(self._farm.clock())
            placement.repin_units(self._farm, self._epoch)
            self._pinned_to = versions

    def _time_is_steady(self) -> bool:
        """Tell whether leases can be judged by the clock.

        After a suspended laptop wakes up, a step of the clock or a stall of our own, leases look old whose workers
        live: they get the time of one lease to renew them.
        """
        moment = time.monotonic()
        elapsed_s, clock_s = moment - self._last_tick[0], self._farm.clock() - self._last_tick[1]
        self._last_tick = (moment, self._farm.clock())
        lease_s = self._farm.settings.lease_s
        if elapsed_s > lease_s / 2 or abs(clock_s - elapsed_s) > lease_s / 4:
            log.info("%.1f s passed since the last look, %.1f s by the clock", elapsed_s, clock_s)
            self._steady_from = moment + lease_s
        return moment >= self._steady_from

    def _cancel_unwanted(self) -> None:
        """Stop what runs on a worker although the database has moved on: a cancelled task, a lease taken back."""
        given = {lease for member in self._supervisor.members.values() for lease in member.leases}
        if given:
            with self._farm.database.read() as tx:
                self._supervisor.cancel(given.difference(tx.units.leases()))

    def _record_workers(self, now: float) -> None:
        """Write down how the workers are, when that has changed or is some seconds old."""
        present = {member.worker_id: as_worker(member) for member in self._supervisor.members.values()}
        news = [worker for worker in present.values() if worker is not None and self._is_news(worker)]
        news += [
            replace(worker, state=WorkerState.GONE, unit_id=None, last_seen_at=now)
            for worker_id, worker in self._recorded.items()
            if worker_id not in present and worker.state is not WorkerState.GONE
        ]
        if news:
            placement.record_workers(self._farm, news)
            self._recorded.update((worker.id, worker) for worker in news)

    def _is_news(self, worker: Worker) -> bool:
        known = self._recorded.get(worker.id)
        if known is None or worker.last_seen_at - known.last_seen_at >= _RECORD_EVERY_S:
            return True
        return replace(known, last_seen_at=worker.last_seen_at) != worker
