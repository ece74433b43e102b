"""Reaching the actors by name: all that the HTTP API knows of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from renderfarm.domain.leases import Lease
from renderfarm.errors import FarmUnavailable

log = logging.getLogger(__name__)

NAMESPACE = "renderfarm"
SCHEDULER = "scheduler"
_WORKER = "worker:"
_ANSWER_TIMEOUT_S = 3.0


def worker_actor_name(worker_id: str) -> str:
    """Return the Ray actor name of a worker."""
    return f"{_WORKER}{worker_id}"


class RayCompute:
    """Implements ``ports.Compute`` over Ray actors. Handles are looked up anew: actors come and go."""

    def wake(self) -> None:
        scheduler = _find(SCHEDULER)
        if scheduler is not None:
            scheduler.wake.remote()

    def live_log(
        self, worker_id: str, unit_id: str, attempt: int, offset: int, limit: int, tail: int | None
    ) -> tuple[int, bytes] | None:
        worker = _find(worker_actor_name(worker_id))
        if worker is None:
            return None
        reply = worker.read_log.remote(unit_id, attempt, offset, limit, tail)
        try:
            piece: tuple[int, bytes] | None = ray.get(reply, timeout=_ANSWER_TIMEOUT_S)
        except (RayError, GetTimeoutError) as error:
            log.info("worker %s did not give its log: %s", worker_id, error)
            return None
        return piece

    def leases(self) -> dict[str, tuple[Lease, ...]]:
        try:
            names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if _is_worker(actor)]
            workers = {name.removeprefix(_WORKER): _find(name) for name in names}
            pings = {handle.ping.remote(): worker_id for worker_id, handle in workers.items() if handle is not None}
            done, _ = ray.wait(list(pings), num_returns=len(pings), timeout=_ANSWER_TIMEOUT_S) if pings else ([], [])
        except RayError as error:
            raise FarmUnavailable(f"the workers cannot be asked: {type(error).__name__}") from error
        held: dict[str, tuple[Lease, ...]] = {}
        for ping in done:
            try:
                held[pings[ping]] = ray.get(ping).leases
            except RayError as error:
                log.info("worker %s does not say what it works on: %s", pings[ping], error)
        return held

    def answers(self) -> dict[str, str]:
        scheduler = _find(SCHEDULER)
        if scheduler is None:
            return {"scheduler": "there is no scheduler"}
        try:
            reply: str = ray.get(scheduler.health.remote(), timeout=_ANSWER_TIMEOUT_S)
        except (RayError, GetTimeoutError) as error:
            return {"scheduler": f"the scheduler does not answer: {type(error).__name__}"}
        return {"scheduler": reply}


def _is_worker(actor: Mapping[str, str]) -> bool:
    return actor["namespace"] == NAMESPACE and actor["name"].startswith(_WORKER)


def _find(name: str) -> Any | None:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:  # Ray's word for: no such actor
        return None
