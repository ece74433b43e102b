"""Telling what happens on a farm in short sentences: submit, admit, place, commit, fail."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Beat, Lease, RenderedFile
from renderfarm.domain.models import Asset, AssetFile, LogEntry, Output, Task, Unit, Worker
from renderfarm.domain.policy import Slot
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.states import AssetState, UnitState, WorkerState
from renderfarm.errors import LeaseLost
from renderfarm.ports import Farm
from renderfarm.services import admission, failing, placement, results, tasks
from renderfarm.services.results import Assignment, FrameCommit
from renderfarm.settings import Settings
from renderfarm.wiring import prepare_farm
from tests.unit.fakes import FakeCompute, scene_facts

BLENDER = "4.5.15"
REPORT = AttemptReport(log_digest=None, peak_memory_bytes=1 << 20)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def make_farm(data: Path, clock: Clock, numbers: Iterator[int], database_url: str | None = None) -> Farm:
    farm = prepare_farm(Settings(data=data, runtime=data / "runtime", database_url=database_url), FakeCompute())
    return replace(farm, clock=clock, random=lambda: 1.0, new_id=lambda: f"{next(numbers):026d}")


@dataclass
class Story:
    farm: Farm
    clock: Clock
    epoch: int = 0

    def lead(self) -> int:
        self.epoch = placement.take_leadership(self.farm, "test")
        return self.epoch

    def worker(self, worker_id: str = "w1", versions: tuple[str, ...] = (BLENDER,)) -> Worker:
        worker = Worker(
            id=worker_id,
            node="node",
            address="127.0.0.1",
            pid=1,
            state=WorkerState.IDLE,
            blender_versions=versions,
            threads=1,
            memory_bytes=1 << 30,
            gpus=0,
            labels={},
            open_scene=None,
            unit_id=None,
            consecutive_failures=0,
            set_aside_until=None,
            set_aside_reason=None,
            last_seen_at=self.clock(),
            started_at=self.clock(),
        )
        placement.record_workers(self.farm, [worker])
        return worker

    def asset(self, facts: SceneFacts | None = None, state: AssetState = AssetState.READY) -> Asset:
        asset = Asset(
            id=self.farm.new_id(),
            project_id="default",
            owner="local",
            name="shot",
            version=1,
            main_file="shot.blend",
            files=(AssetFile(path="shot.blend", digest="0" * 64, size_bytes=10),),
            file_version="4.5",
            state=state,
            facts=(facts or scene_facts()) if state is AssetState.READY else None,
            failure=None,
            created_at=self.clock(),
        )
        with self.farm.database.write() as tx:
            asset = replace(asset, version=tx.assets.latest_version("default", "shot") + 1)
            tx.assets.add(asset)
        return asset

    def submit(self, asset: Asset | None = None, priority: int = 50, **settings: object) -> Task:
        return tasks.submit_task(
            self.farm,
            LOCAL_OWNER,
            asset_id=(asset or self.asset()).id,
            settings=RenderSettings(**settings),  # type: ignore[arg-type]
            name=None,
            priority=priority,
        )

    def admitted(self, asset: Asset | None = None, priority: int = 50, **settings: object) -> Task:
        """Submit a task and let the scheduler take it in."""
        if not self.epoch:
            self.lead()
        self.worker()
        task = self.submit(asset, priority, **settings)
        self.admit()
        return self.task(task.id)

    def admit(self) -> None:
        admission.relay_outbox(self.farm, self.epoch)
        admission.admit_queued(self.farm, self.epoch)

    def place(self, *worker_ids: str, busy: Collection[str] = ()) -> list[Lease]:
        """Place what is ready."""
        slots = self.slots(worker_ids or ("w1",), busy)
        nodes = {slot.worker_id: "node" for slot in slots}
        return [placed.lease for placed in placement.place_units(self.farm, self.epoch, slots, nodes).placed]

    @staticmethod
    def slots(worker_ids: Sequence[str], busy: Collection[str] = ()) -> list[Slot]:
        """Return workers of which some are busy for another five seconds."""
        slot = Slot(worker_id="w1", free=True, blenders=frozenset({BLENDER}), gpus=0, open_scene=None)
        return [
            replace(slot, worker_id=worker_id, free=False, units=1, backlog_s=5.0)
            if worker_id in busy
            else replace(slot, worker_id=worker_id)
            for worker_id in worker_ids
        ]

    def commit(self, lease: Lease, *, warm: bool = False) -> list[Output]:
        """Commit every frame of a lease's unit that is still to do."""
        assignment = self.begin(lease)
        return [output for frame in assignment.frames for output in self.commit_frame(lease, frame, warm=warm)]

    def begin(self, lease: Lease) -> Assignment:
        assignments = results.begin(self.farm, [lease])
        if lease not in assignments:
            raise LeaseLost(lease.unit_id)
        return assignments[lease]

    def commit_frame(self, lease: Lease, frame: int, seconds: float = 2.0, *, warm: bool = False) -> list[Output]:
        file = RenderedFile(name=f"{frame:04d}.png", digest=f"{frame:064x}", size_bytes=7)
        commit = replace(self.frame_commit(lease, frame, file, seconds), warm=warm)
        [outputs] = results.commit_frames(self.farm, [commit])
        if outputs is None:
            raise LeaseLost(lease.unit_id)
        return outputs

    def frame_commit(self, lease: Lease, frame: int, file: RenderedFile, seconds: float = 1.0) -> FrameCommit:
        """Say what a worker says that got the unit with this lease, whatever has become of it since."""
        with self.farm.database.read() as tx:
            unit = tx.units.get(lease.unit_id)
        assert unit is not None
        began = replace(unit, state=UnitState.RUNNING, attempt=lease.attempt, epoch=lease.epoch)
        return FrameCommit(lease=lease, unit=began, frame=frame, files=(file,), render_seconds=seconds, report=REPORT)

    def renew(self, lease: Lease, progress: float = 0.0, note: str = "") -> None:
        if results.renew(self.farm, [Beat(lease=lease, progress=progress, note=note)]):
            raise LeaseLost(lease.unit_id)

    def fail(self, lease: Lease, kind: FailureKind = FailureKind.CRASH) -> None:
        failing.fail(self.farm, lease, Failure(kind=kind, message="it broke"), REPORT)

    def run_all(self) -> None:
        """Place and commit until nothing is ready."""
        while leases := self.place():
            for lease in leases:
                self.commit(lease)

    def task(self, task_id: str) -> Task:
        return tasks.get_task(self.farm, LOCAL_OWNER, task_id)

    def units(self, task_id: str) -> list[Unit]:
        with self.farm.database.read() as tx:
            return list(tx.units.of_task(task_id).items)

    def outputs(self, task_id: str) -> list[Output]:
        with self.farm.database.read() as tx:
            return list(tx.outputs.of_task(task_id).items)

    def log(self, task_id: str) -> list[LogEntry]:
        with self.farm.database.read() as tx:
            return tx.log.page(task_id=task_id)
