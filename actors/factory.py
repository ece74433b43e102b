"""Making actors: every Ray option of the farm stands here."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.handles import NAMESPACE, SCHEDULER, RayCompute, worker_actor_name
from actors.messages import Outcome, Pulse, WorkerInfo
from actors.node_resources import node_resources, threads_of
from actors.places import NO_GPUS, WorkerPlace
from actors.scheduler import Scheduler
from actors.worker import Worker
from renderfarm.domain.leases import Lease
from renderfarm.settings import Settings, give_children
from renderfarm.wiring import open_farm


def settle_memory() -> None:
    """Let Python's collector look at what is new only, and less often.

    Ray's and SQLAlchemy's modules are a few hundred thousand objects that stay: going through them again and again
    took a tenth of a busy worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


class SchedulerActor:
    """The scheduler behind Ray. It starts to work as soon as it exists, also when Ray restarts it."""

    def __init__(self, settings: Settings) -> None:
        self._scheduler = Scheduler(open_farm(settings, RayCompute()), start_worker)
        settle_memory()
        self._scheduler.start()

    def wake(self) -> None:
        self._scheduler.wake()

    def health(self) -> str:
        return self._scheduler.health()

    def stop(self) -> None:
        self._scheduler.stop()


class WorkerActor:
    """A worker behind Ray."""

    def __init__(self, settings: Settings, place: WorkerPlace) -> None:
        if place.hides_gpus:
            give_children(NO_GPUS)
        threads = threads_of(place.cpus, place.node_cpus, node_resources().cores)
        farm = open_farm(settings, RayCompute())
        self._worker = Worker(farm, place.worker_id, place.address, threads, place.workers)
        settle_memory()

    async def describe(self) -> WorkerInfo:
        return await self._worker.describe()

    async def ping(self) -> Pulse:
        return await self._worker.ping()

    async def execute(self, leases: Sequence[Lease]) -> list[Outcome]:
        return await self._worker.execute(leases)

    async def cancel(self, leases: Sequence[Lease]) -> None:
        await self._worker.cancel(leases)

    async def read_log(
        self, unit_id: str, attempt: int, offset: int, limit: int, tail: int | None
    ) -> tuple[int, bytes] | None:
        return await self._worker.read_log(unit_id, attempt, offset, limit, tail)

    async def stop(self) -> None:
        await self._worker.stop()


def start_scheduler(settings: Settings) -> Any:
    """Start the farm's one scheduler, or find the one that runs."""
    return (
        ray.remote(SchedulerActor)
        .options(
            name=SCHEDULER,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            # A wake-up or a question of health never waits for another.
            max_concurrency=8,
        )
        .remote(settings)
    )


def start_worker(settings: Settings, place: WorkerPlace) -> Any:
    """Start a worker in its place, or find the one of that name that runs."""
    return (
        ray.remote(WorkerActor)
        .options(
            name=worker_actor_name(place.worker_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=place.cpus,
            # Ray shows it this GPU and no other, by the environment.
            num_gpus=place.gpus,
            # A worker that dies takes its session along; the scheduler starts a new one and knows why.
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=64,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node_id, soft=False),
        )
        .remote(settings, place)
    )
