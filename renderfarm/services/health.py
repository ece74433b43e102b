"""Whether the farm can do its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from renderfarm.errors import RenderfarmError
from renderfarm.ports import Farm
from renderfarm.services.nodes import present_workers

#: Without these the farm works on: slower, or with what it has been given so far.
DISPENSABLE = frozenset({"cache", "events", "queue"})
_ANSWER_TIMEOUT_S = 4.0
_KNOWN_FOR_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """How the farm is."""

    status: Literal["ready", "degraded", "not_ready"]
    services: Mapping[str, str]
    """For each part of the farm ``ok``, or in one line what is wrong with it."""


class Readiness:
    """Asks the parts of the farm how they are: those outside of it at the same time, and once a second at most."""

    def __init__(self, farm: Farm, clock: Callable[[], float] = time.monotonic) -> None:
        self._farm = farm
        self._clock = clock
        self._lock = Lock()
        self._outside: dict[str, str] = {}
        self._asked_at = float("-inf")

    def check(self) -> Health:
        """Return how the farm is; takes a few seconds while a part of it does not answer."""
        parts = {"database": _word_of(self._farm.database.check)}
        if parts["database"] == "ok":
            parts["workers"] = "ok" if present_workers(self._farm) else "no worker has started yet"
        parts |= self._outside_parts() | self._farm.compute.answers()
        wrong = {name for name, word in parts.items() if word != "ok"}
        status: Literal["ready", "degraded", "not_ready"] = "degraded" if wrong else "ready"
        return Health(status="not_ready" if wrong - DISPENSABLE else status, services=parts)

    def _outside_parts(self) -> dict[str, str]:
        with self._lock:
            if self._clock() - self._asked_at >= _KNOWN_FOR_S:
                self._outside = _words_of(self._farm)
                self._asked_at = self._clock()
            return self._outside


def _words_of(farm: Farm) -> dict[str, str]:
    checks: dict[str, Callable[[], None]] = {
        "queue": farm.queue.check,
        "objects": farm.objects.check,
        "cache": farm.statuses.check,
        "events": farm.events.check,
    }
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="health")
    try:
        answers = {name: pool.submit(_word_of, check) for name, check in checks.items()}
        wait(answers.values(), timeout=_ANSWER_TIMEOUT_S)
        return {name: _word_in(answer) for name, answer in answers.items()}
    finally:
        pool.shutdown(wait=False)  # who does not answer now is not waited for


def _word_in(answer: Future[str]) -> str:
    return answer.result() if answer.done() else f"no answer within {_ANSWER_TIMEOUT_S:g} s"


def _word_of(check: Callable[[], None]) -> str:
    try:
        check()
    except RenderfarmError as error:
        return str(error)
    return "ok"
