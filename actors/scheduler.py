"""The scheduler: one thread that looks at the truth in the database, and acts on it.

It keeps nothing that it could not find out again, so it may die at any moment.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import replace

import ray

from actors.supervisor import Supervisor, WorkerStarter, as_worker
from renderfarm.domain.models import Worker
from renderfarm.domain.states import WorkerState
from renderfarm.errors import Deposed, FarmUnavailable, StorageFull
from renderfarm.ports import Farm
from renderfarm.services import admission, outputs, placement

log = logging.getLogger(__name__)

_RECORD_EVERY_S = 5.0
_PUBLISH_AFTER_S = 30.0
_STOP_WAIT_S = 10.0
_CRASHED = 70


class Scheduler:
    """Started once; woken whenever there may be something to do; looks around every ``tick_s`` anyway."""

    def __init__(self, farm: Farm, start_worker: WorkerStarter) -> None:
        self._farm = farm
        self._something_to_do = threading.Event()
        self._stopping = threading.Event()
        self._supervisor = Supervisor(farm.settings, start_worker, self.wake)
        self._recorded: dict[str, Worker] = {}
        self._epoch = 0
        self._pinned_to: frozenset[str] = frozenset()
        self._last_tick = (time.monotonic(), farm.clock())
        self._steady_from = 0.0
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin. Nothing here fails: Ray does not restart an actor whose constructor raises."""
        self._thread.start()

    def wake(self) -> None:
        """Look around now."""
        self._something_to_do.set()

    def health(self) -> str:
        """Return ``ok``, or in one line what is wrong."""
        if not self._thread.is_alive():
            return self._trouble or "the scheduler's thread has ended"
        return self._trouble or self._supervisor.trouble or "ok"

    def stop(self) -> None:
        """Place nothing more, and end every worker and its Blender."""
        self._stopping.set()
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
        log.info("scheduling begins, epoch %s", self._epoch)

    def _pause_s(self) -> float:
        """Return how long nothing can happen that nobody would wake us for."""
        now = self._farm.clock()
        with self._farm.database.read() as tx:
            backoff_ends_at = tx.units.next_backoff(now)
        tick_s = self._farm.settings.tick_s
        return tick_s if backoff_ends_at is None else min(tick_s, max(0.01, backoff_ends_at - now))

    def _tick(self) -> None:
        farm, supervisor, epoch = self._farm, self._supervisor, self._epoch
        now = farm.clock()
        supervisor.ensure_workers(now)
        _, losses = supervisor.listen(now)
        for loss in losses:
            placement.lose_worker(farm, epoch, loss.member.worker_id, loss.reason)
        if self._time_is_steady():
            placement.expire_leases(farm, epoch)
        self._repin_after_change()
        admission.relay_outbox(farm, epoch)
        admission.admit_queued(farm, epoch)
        self._cancel_unwanted()
        for lease in placement.place_units(farm, epoch, supervisor.slots(now), supervisor.nodes()):
            supervisor.dispatch(lease)
        self._record_workers(now)
        outputs.publish_leftovers(farm, _PUBLISH_AFTER_S)

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
        busy = [member.lease for member in self._supervisor.members.values() if member.lease is not None]
        if not busy:
            return
        with self._farm.database.read() as tx:
            wanted = {placement.lease_of(unit) for unit in tx.units.running()}
        for lease in busy:
            if lease not in wanted:
                self._supervisor.cancel(lease)

    def _record_workers(self, now: float) -> None:
        """Write down how the workers are, when that has changed or is some seconds old."""
        present = {member.worker_id: as_worker(member) for member in self._supervisor.members.values()}
        for worker in present.values():
            if worker is not None and self._is_news(worker):
                self._record(worker)
        for worker_id, worker in self._recorded.items():
            if worker_id not in present and worker.state is not WorkerState.GONE:
                self._record(replace(worker, state=WorkerState.GONE, unit_id=None, last_seen_at=now))

    def _is_news(self, worker: Worker) -> bool:
        known = self._recorded.get(worker.id)
        if known is None or worker.last_seen_at - known.last_seen_at >= _RECORD_EVERY_S:
            return True
        return replace(known, last_seen_at=worker.last_seen_at) != worker

    def _record(self, worker: Worker) -> None:
        placement.record_worker(self._farm, worker)
        self._recorded[worker.id] = worker
