"""A farm whose Blender and object store do nothing: everything else is real."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from actors.factory import SchedulerActor, WorkerActor, settle_memory
from actors.handles import NAMESPACE, SCHEDULER, RayCompute, worker_actor_name
from actors.places import WorkerPlace
from actors.scheduler import Scheduler
from actors.worker import Worker
from blender_runtime.protocol import FrameDone, Render
from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.leases import RenderedFile
from renderfarm.domain.models import Asset, AssetFile
from renderfarm.domain.models import Worker as WorkerRecord
from renderfarm.domain.states import AssetState, WorkerState
from renderfarm.ports import Farm
from renderfarm.services.projects import DEFAULT_PROJECT
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, open_farm, prepare_farm

_PIXELS = b"pixels"
_DIGEST = hashlib.sha256(_PIXELS).hexdigest()


class NoOpObjects:
    """As much of ``ports.Objects`` as an attempt uses."""

    def put(self, source: Path) -> str:
        return _DIGEST

    def publish(self, digest: str, name: str) -> None: ...

    def close(self) -> None: ...


class NoOpSession:
    """As much of a Blender session as an attempt uses."""

    alive = True
    wants_restart = False
    takes_ahead = False
    peak_memory_bytes = 1

    def __init__(self) -> None:
        self.open_scene: Path | None = None

    async def render(
        self, request: Render, *, on_frame: Callable[[FrameDone], Awaitable[None]], **_options: object
    ) -> None:
        self.open_scene = Path(request.scene_path)
        for frame in request.frames:
            # Its picture is no file, as nothing stores it.
            files = (f"{request.output_dir}/{frame:04d}.noop",)
            await on_frame(FrameDone(frame=frame, files=files, render_seconds=0.0, warm=False))

    def withdraw(self, request: Render) -> None: ...

    def kill(self) -> None: ...

    async def close(self) -> None: ...


class NoOpWorker(Worker):
    """The real worker, but for its session."""

    _noop = NoOpSession()

    async def session(self, version: str, log_path: Path) -> Any:
        self._session = self._noop  # type: ignore[assignment]
        return self._noop

    @staticmethod
    def store(farm: Farm, paths: Sequence[Path], output_dir: Path) -> tuple[RenderedFile, ...]:
        del farm, output_dir
        return tuple(RenderedFile(name=path.name, size_bytes=len(_PIXELS), digest=_DIGEST) for path in paths)


class NoOpWorkerActor(WorkerActor):
    """The real worker actor around it."""

    def __init__(self, settings: Settings, place: WorkerPlace) -> None:
        farm = replace(open_farm(settings, RayCompute()), objects=NoOpObjects())  # type: ignore[arg-type]
        self._worker = NoOpWorker(farm, place.worker_id, place.address, threads=1)
        settle_memory()
        # Its scene is no file.
        self._worker.cache.fetch = _fetch_nothing  # type: ignore[method-assign]


def _fetch_nothing(asset: Asset, now: float) -> Path:
    del now
    return Path(asset.main_file)


class NoOpSchedulerActor(SchedulerActor):
    """The real scheduler actor, which starts those workers."""

    def __init__(self, settings: Settings) -> None:
        self._scheduler = Scheduler(open_farm(settings, RayCompute()), _start_worker)
        settle_memory()
        self._scheduler.start()


def _start_worker(settings: Settings, place: WorkerPlace) -> Any:
    options = {"name": worker_actor_name(place.worker_id), "namespace": NAMESPACE, "lifetime": "detached"}
    actor = ray.remote(NoOpWorkerActor).options(**options, get_if_exists=True, num_cpus=place.cpus, max_concurrency=64)
    return actor.remote(settings, place)


@contextmanager
def noop_farm(settings: Settings) -> Iterator[tuple[Farm, str]]:
    """Run a farm on the Ray that is there; yield it with the id of an asset that can be rendered."""
    farm = prepare_farm(settings, RayCompute())
    try:
        with running_scheduler(settings):
            yield farm, add_asset(farm)
    finally:
        close_farm(farm)


@contextmanager
def running_scheduler(settings: Settings) -> Iterator[None]:
    """Run the scheduler actor, and by it the workers, on the Ray that is there."""
    options: dict[str, Any] = {"name": SCHEDULER, "namespace": NAMESPACE, "num_cpus": 0, "max_concurrency": 8}
    actor: Any = ray.remote(NoOpSchedulerActor)
    scheduler = actor.options(**options).remote(settings)
    try:
        yield
    finally:
        ray.get(scheduler.stop.remote(), timeout=60)
        ray.kill(scheduler)
        for actor_name in ray.util.list_named_actors(all_namespaces=True):  # workers that were told to stop
            if actor_name["namespace"] == NAMESPACE:
                ray.kill(ray.get_actor(**actor_name))


def add_asset(farm: Farm) -> str:
    scene = SceneInfo(
        name="Scene",
        engine="CYCLES",
        frame_start=1,
        frame_end=100,
        frame_step=1,
        frame_current=1,
        fps=24.0,
        resolution_x_px=320,
        resolution_y_px=180,
        percent=100,
        cameras=("Camera",),
        camera="Camera",
        view_layers=("ViewLayer",),
        file_format="PNG",
        is_movie=False,
        output_path="/tmp/",
        samples=16,
    )
    facts = SceneFacts(
        blender_version="4.5",
        file_version="4.2",
        active_scene="Scene",
        scenes=(scene,),
        missing_files=(),
        libraries=(),
        memory_bytes=0,
        has_scripts=False,
    )
    asset = Asset(
        id=farm.new_id(),
        project_id=DEFAULT_PROJECT,
        owner=LOCAL_OWNER.name,
        name="nothing",
        version=1,
        main_file="nothing.blend",
        files=(AssetFile(path="nothing.blend", digest=_DIGEST, size_bytes=len(_PIXELS)),),
        file_version="4.2",
        state=AssetState.READY,
        facts=facts,
        failure=None,
        created_at=farm.clock(),
    )
    with farm.database.write() as tx:
        tx.assets.add(asset)
    return asset.id


def worker_record(worker_id: str, blender: str) -> WorkerRecord:
    """Return a worker as the scheduler writes it down."""
    return WorkerRecord(
        id=worker_id,
        node="node",
        address="127.0.0.1",
        pid=1,
        state=WorkerState.IDLE,
        blender_versions=(blender,),
        threads=1,
        memory_bytes=1,
        gpus=0,
        labels={},
        open_scene=None,
        unit_id=None,
        consecutive_failures=0,
        set_aside_until=None,
        set_aside_reason=None,
        last_seen_at=0.0,
        started_at=0.0,
    )
