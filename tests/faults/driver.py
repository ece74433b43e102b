"""Breaks a farm and its services in every way, at moments that a seed decides."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil

from renderfarm.errors import FarmUnavailable
from tests.integration.farm_process import FarmProcess
from tests.private_rabbitmq import PrivateRabbitMq
from tests.private_servers import PrivateMariaDb, PrivateRedis
from tests.servers import mysql_database

#: A farm that has lost everything at once is at work again within a minute on two busy cores.
_STUCK_AFTER_S = 240.0
_LOOK_EVERY_S = 0.1
#: When nothing gets done, the next fault comes all the same.
_FAULT_AFTER_S = 8.0


class Studio:
    """A farm of two workers on a MariaDB, a RabbitMQ and a Redis of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self.mariadb = self._stack.enter_context(PrivateMariaDb())
            self.rabbitmq = self._stack.enter_context(PrivateRabbitMq())
            self.redis = self._stack.enter_context(PrivateRedis())
            url = self._stack.enter_context(mysql_database(self.mariadb.url))
            self.farm = FarmProcess(
                self._folder,
                workers="2",
                # Short, so that a test sees leases expire; longer than any of the servers takes to come back.
                lease_s="10",
                heartbeat_s="0.5",
                database_url=url,
                amqp_url=self.rabbitmq.url,
                redis_url=self.redis.url,
            )
            self._stack.callback(self.farm.stop)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()


Fault = Callable[[Studio, random.Random], None]


def _kill(part: str) -> Fault:
    """Return a fault that kills one of the farm's processes whose command line has ``part`` in it."""

    def fault(studio: Studio, dice: random.Random) -> None:
        processes = sorted(studio.farm.processes(part), key=lambda process: process.pid)
        if processes:  # else the last fault's successor is still to come: nothing is left to kill
            try:
                dice.choice(processes).kill()
            except psutil.NoSuchProcess:
                return

    return fault


#: Each with how often it comes, compared with the others.
FAULTS: dict[str, tuple[Fault, int]] = {
    "Blender killed": (_kill("blender_runtime/session.py"), 5),
    "worker killed": (_kill("ray::WorkerActor"), 3),
    "scheduler killed": (_kill("ray::SchedulerActor"), 3),
    "Serve replica killed": (_kill("ray::ServeReplica"), 2),
    "MariaDB killed and started": (lambda studio, _: studio.mariadb.restart(), 3),
    "RabbitMQ killed and started": (lambda studio, _: studio.rabbitmq.restart(), 2),
    "Redis killed and started": (lambda studio, _: studio.redis.restart(), 2),
}


@dataclass
class Driver:
    """Submits tasks and lets faults happen in step with the frames that get done, so that work goes on between them."""

    studio: Studio
    seed: int
    tasks: int
    frames: int
    """Of each task, one unit each."""
    faults: int
    accepted: list[str] = field(default_factory=list)
    """Ids of the tasks that were answered with success."""
    done: Counter[str] = field(default_factory=Counter)
    """Faults that have happened, by name."""
    _seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The latest status of each task."""

    def run(self, asset_id: str) -> None:
        """Submit everything, break things, and wait until every accepted task has ended."""
        dice = random.Random(self.seed)
        plan = self._plan(dice)
        moved_s, before, due = time.monotonic(), -1, 0
        while plan or len(self.accepted) < self.tasks or not self._have_ended():
            frames = self._frames_done()
            # Tasks come in step with the faults: there is always work that they can hit, and work that comes later.
            if len(self.accepted) < self._tasks_by_now(plan):
                self._submit(asset_id)
            if plan and (frames >= due or time.monotonic() > moved_s + _FAULT_AFTER_S):
                name = plan.pop(0)
                FAULTS[name][0](self.studio, dice)
                self.done[name] += 1
                due = frames + dice.randint(1, 2 * self.tasks * self.frames // self.faults)
            progress = self._frames_done() + self.done.total()
            if progress != before:
                moved_s, before = time.monotonic(), progress
            assert time.monotonic() < moved_s + _STUCK_AFTER_S, self._story()
            time.sleep(_LOOK_EVERY_S)

    def _tasks_by_now(self, plan: Sequence[str]) -> int:
        return min(self.tasks, 2 + self.tasks * (self.faults - len(plan)) // self.faults)

    def _plan(self, dice: random.Random) -> list[str]:
        """Return the faults in their order: each kind at least twice."""
        names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
        plan = names * 2 + dice.choices(names, weights, k=self.faults - 2 * len(names))
        dice.shuffle(plan)
        return plan

    def _submit(self, asset_id: str) -> None:
        client = self.studio.farm.client
        answer = self._ask(partial(client.submit_task, asset_id, {"frames": f"1-{self.frames}"}, name="faults"))
        if answer is not None:
            self.accepted.append(answer["id"])

    def _frames_done(self) -> int:
        client = self.studio.farm.client
        for task_id in self.accepted:
            answer = self._ask(partial(client.get_status, task_id))
            if answer is not None:
                self._seen[task_id] = answer
        return sum(answer["frames_done"] for answer in self._seen.values())

    def _have_ended(self) -> bool:
        return all(
            self._seen.get(task_id, {}).get("status") in ("completed", "failed", "cancelled")
            for task_id in self.accepted
        )

    @staticmethod
    def _ask(question: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Return the answer, or None: whoever is to answer has just been killed, or misses a service."""
        try:
            return question()
        except FarmUnavailable:
            return None

    def _story(self) -> str:
        seen = "\n".join(str(status) for status in self._seen.values())
        return f"nothing has moved for {_STUCK_AFTER_S:.0f} s after {dict(self.done)}:\n{seen}"
