"""Reaching the actors by name: all that the HTTP API knows of them."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

log = logging.getLogger(__name__)

NAMESPACE = "renderfarm"
SCHEDULER = "scheduler"
_ANSWER_TIMEOUT_S = 3.0


def worker_actor_name(worker_id: str) -> str:
    """Return the Ray actor name of a worker."""
    return f"worker:{worker_id}"


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

    def answers(self) -> dict[str, str]:
        scheduler = _find(SCHEDULER)
        if scheduler is None:
            return {"scheduler": "there is no scheduler"}
        try:
            reply: str = ray.get(scheduler.health.remote(), timeout=_ANSWER_TIMEOUT_S)
        except (RayError, GetTimeoutError) as error:
            return {"scheduler": f"the scheduler does not answer: {type(error).__name__}"}
        return {"scheduler": reply}


def _find(name: str) -> Any | None:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:  # Ray's word for: no such actor
        return None
