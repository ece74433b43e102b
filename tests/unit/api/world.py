"""A whole farm without Ray and Blender: real services over real SQLite, and a worker that is a few lines."""

from __future__ import annotations

import functools
import hashlib
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.flaws import Glance
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, Task, Worker
from renderfarm.domain.policy import Slot
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.states import WorkerState
from renderfarm.ports import Farm
from renderfarm.services import admission, assets, failing, placement, results, tasks
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, open_farm, prepare_farm
from tests.unit.fakes import FakeCompute, scene_facts, scene_info

WORKER, NODE = "node-1-0", "node-1"


def blend_bytes(version: str = "405") -> bytes:
    """Return the smallest file that passes for a .blend from the outside."""
    blocks = [struct.pack("<4siQii", code, 4, 1, 0, 1) + b"data" for code in (b"DATA", b"DNA1")]
    return b"BLENDER-v" + version.encode() + b"".join(blocks) + struct.pack("<4siQii", b"ENDB", 0, 0, 0, 0)


SCENE = scene_info(resolution_x_px=64, resolution_y_px=36, cameras=("Front", "Top"), camera="Front")
FACTS = scene_facts(SCENE)


@functools.cache
def _empty_database() -> bytes:
    """Migrate once; every farm begins with a copy."""
    with tempfile.TemporaryDirectory() as folder:
        close_farm(prepare_farm(Settings(data=Path(folder)), FakeCompute()))
        return Path(folder, "farm.db").read_bytes()


class World:
    """A farm, and the hand that plays its scheduler and its worker."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.compute = FakeCompute()
        data = folder / "data"
        data.mkdir()
        (data / "farm.db").write_bytes(_empty_database())
        self.farm: Farm = open_farm(Settings(data=data, runtime=folder / "run", **settings), self.compute)
        self._epoch = placement.take_leadership(self.farm, "test")

    def close(self) -> None:
        close_farm(self.farm)

    @property
    def uploads(self) -> list[Path]:
        """Everything in the folder of uploads: it has to be empty between requests."""
        return list((self.farm.settings.data / "uploads").glob("*"))

    def start_worker(self) -> None:
        now = self.farm.clock()
        worker = Worker(
            id=WORKER,
            node=NODE,
            address="127.0.0.1",
            pid=1,
            state=WorkerState.IDLE,
            blender_versions=("4.5.15",),
            threads=8,
            memory_bytes=16 * 2**30,
            gpus=0,
            labels={"pool": "default"},
            open_scene=None,
            unit_id=None,
            consecutive_failures=0,
            set_aside_until=None,
            set_aside_reason=None,
            last_seen_at=now,
            started_at=now,
        )
        placement.record_workers(self.farm, [worker])

    def pending_asset(self, name: str = "shot") -> Asset:
        file = self.folder / "scene.blend"
        file.write_bytes(blend_bytes())
        return assets.store_asset(self.farm, LOCAL_OWNER, upload=file, file_name="scene.blend", name=name, main=None)

    def inspect(self, facts: SceneFacts = FACTS) -> None:
        """Place and end the inspection that waits."""
        lease = self.place()
        results.commit_inspection(self.farm, lease, facts, AttemptReport(log_digest=None, peak_memory_bytes=None))

    def ready_asset(self, name: str = "shot") -> Asset:
        asset = self.pending_asset(name)
        self.start_worker()
        self.inspect()
        return assets.get_asset(self.farm, LOCAL_OWNER, asset.id)

    def task(self, asset: Asset | None = None, *, frames: str = "1-3", name: str = "shot", priority: int = 50) -> Task:
        asset = asset or self.ready_asset()
        settings = RenderSettings(frames=frames)
        task = tasks.submit_task(
            self.farm, LOCAL_OWNER, asset_id=asset.id, settings=settings, name=name, priority=priority
        )
        self._admit()
        return tasks.get_task(self.farm, LOCAL_OWNER, task.id)

    def place(self) -> Lease:
        """Lease the next unit to the worker."""
        self._admit()
        slot = Slot(worker_id=WORKER, free=True, blenders=frozenset({"4.5.15"}), gpus=0, open_scene=None)
        (placed,) = placement.place_units(self.farm, self._epoch, [slot], {WORKER: NODE}).placed
        return placed.lease

    def commit(
        self,
        lease: Lease,
        frame: int,
        content: bytes = b"pixels",
        log: bytes = b"Fra:1\nSaved\n",
        glance: Glance | None = None,
    ) -> Output:
        """Commit one frame of one file."""
        digest = self._blob(content)
        file = RenderedFile(name=f"{frame:04d}.png", digest=digest, size_bytes=len(content), glance=glance)
        report = AttemptReport(log_digest=self._blob(log), peak_memory_bytes=123, devices=("OPTIX: NVIDIA H200",))
        unit = results.begin(self.farm, [lease])[lease].unit
        commit = results.FrameCommit(
            lease=lease, unit=unit, frame=frame, files=(file,), render_seconds=1.5, report=report
        )
        (outputs,) = results.commit_frames(self.farm, [commit])
        assert outputs is not None
        return outputs[0]

    def finish(self, task: Task) -> list[Output]:
        """Render every unit of a task that still waits."""
        outputs = []
        while tasks.get_task(self.farm, LOCAL_OWNER, task.id).units_open:
            lease = self.place()
            unit = results.begin(self.farm, [lease])[lease]
            outputs += [self.commit(lease, frame, b"frame %d" % frame) for frame in unit.frames]
        return outputs

    def fail(self, lease: Lease, message: str = "no such node") -> None:
        failure = Failure(kind=FailureKind.SCRIPT_ERROR, message=message)
        failing.fail(self.farm, lease, failure, AttemptReport(log_digest=self._blob(b"oops"), peak_memory_bytes=None))

    def _admit(self) -> None:
        admission.relay_outbox(self.farm, self._epoch)
        admission.admit_queued(self.farm, self._epoch)

    def _blob(self, content: bytes) -> str:
        file = self.folder / "blob"
        file.write_bytes(content)
        digest = self.farm.objects.put(file)
        assert digest == hashlib.sha256(content).hexdigest()
        return digest


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port of this machine; yield its URL."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1, lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
