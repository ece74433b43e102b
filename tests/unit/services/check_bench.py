"""A farm in whose places a test plants disagreements, and what it looks at them with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, Task, TaskStatus
from renderfarm.domain.states import AssetState
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import DeadLetter
from renderfarm.services import admission, outputs, placement, progress, results, tasks
from renderfarm.services.check import check_farm
from renderfarm.services.reconcile.findings import CheckOptions, CheckReport, Finding, Kind
from renderfarm.services.results import FrameCommit
from tests.unit.fakes import FakeCompute
from tests.unit.services.story import Story

HOUR = 3600.0


class SharedStatuses:
    """A cache that all processes share, as far as a check sees it; a test may spoil what it keeps."""

    def __init__(self) -> None:
        self.held: dict[str, TaskStatus] = {}
        self.down = False

    def get(self, task_id: str) -> TaskStatus | None:
        return self.held.get(task_id)

    def at_hand(self, task_id: str) -> TaskStatus | None:
        return self.get(task_id)

    def now(self) -> float:
        return 0.0

    def keep(self, statuses: Sequence[TaskStatus], read_at: float) -> None:
        self.held |= {status.task_id: status for status in statuses}

    def outdate(self, revisions: Any) -> None:
        """Never told, as if it had been away."""

    def kept(self, task_ids: Any) -> dict[str, int]:
        return {task_id: self.held[task_id].revision for task_id in task_ids if task_id in self.held}

    def check(self) -> None:
        if self.down:
            raise FarmUnavailable("the cache does not answer")

    def close(self) -> None: ...


@dataclass
class LetteredQueue:
    """The farm's queue, with dead letters of the test's own."""

    real: Any
    letters: list[DeadLetter]

    def dead(self, limit: int) -> list[DeadLetter]:
        return self.letters[:limit]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Bench:
    """A story whose outputs have bytes, and whose workers say what the story has given them."""

    def __init__(self, story: Story, folder: Path) -> None:
        self.story, self.folder = story, folder
        self.statuses = SharedStatuses()
        settings = story.farm.settings.model_copy(update={"redis_url": "redis://nowhere"})
        story.farm = self.farm = replace(story.farm, settings=settings, statuses=self.statuses)
        self.between: Callable[[], None] = lambda: None
        """What happens between the two looks."""
        self.lead()

    @property
    def compute(self) -> FakeCompute:
        assert isinstance(self.farm.compute, FakeCompute)
        return self.farm.compute

    def lead(self) -> None:
        self.story.lead()
        self.story.worker()

    def wait(self, seconds: float) -> None:
        self.story.clock.pass_(seconds)
        self.between()

    def check(self, *, repair: bool = False, **options: Any) -> CheckReport:
        return check_farm(self.farm, LOCAL_OWNER, CheckOptions(**options), repair=repair, wait=self.wait)

    def keep(self, *asked: Task) -> None:
        progress.keep_statuses(self.farm, [task.id for task in asked])

    def blob(self, content: bytes) -> str:
        file = self.folder / "bytes"
        file.write_bytes(content)
        digest = self.farm.objects.put(file)
        self.age(digest, 0.0)
        return digest

    def age(self, digest: str, seconds: float) -> None:
        """Let a blob have been stored so long ago by the story's clock."""
        at = self.story.clock.now - seconds
        os.utime(self.path(digest), (at, at))

    def path(self, digest: str) -> Path:
        return self.farm.settings.data / "objects" / "blobs" / digest[:2] / digest

    def lose(self, digest: str) -> None:
        self.path(digest).unlink()

    def asset(self, state: AssetState = AssetState.READY) -> Asset:
        """An asset whose file is in the store."""
        asset = self.story.asset(state=state)
        self.sql(f"UPDATE asset_files SET digest = '{self.blob(b'scene')}' WHERE asset_id = '{asset.id}'")
        return asset

    def sql(self, statement: str) -> None:
        """Change a row behind everybody's back."""
        with self.farm.database.write() as tx:
            tx._connection.exec_driver_sql(statement)  # type: ignore[attr-defined]

    def pause(self, task: Task) -> None:
        tasks.pause_task(self.farm, LOCAL_OWNER, task.id)

    def relay(self) -> None:
        admission.relay_outbox(self.farm, self.story.epoch)

    def seen_worker(self) -> None:
        """The scheduler has just heard of its worker, which has been there for long."""
        worker = replace(self.story.worker(), started_at=self.story.clock() - HOUR)
        placement.record_workers(self.farm, [worker])

    def submitted(self, frames: str = "1-2") -> Task:
        """A task, admitted."""
        task = self.story.admitted(self.asset(), frames=frames)
        self.keep(task)
        return task

    def placed(self) -> Lease:
        [lease] = self.story.place()
        self.compute.held = {"w1": (lease,)}
        return lease

    def commit(self, lease: Lease, content: bytes | None = None, *, publish: bool = True) -> Output:
        """Commit the one frame of a unit, with its bytes and its log in the store."""
        assignment = self.story.begin(lease)
        [frame] = assignment.frames
        data = b"frame %d" % frame if content is None else content
        file = RenderedFile(name=f"{frame:04d}.png", digest=self.blob(data), size_bytes=len(data))
        report = AttemptReport(log_digest=self.blob(b"log %d" % frame), peak_memory_bytes=1)
        commit = FrameCommit(
            lease=lease, unit=assignment.unit, frame=frame, files=(file,), render_seconds=1.0, report=report
        )
        [committed] = results.commit_frames(self.farm, [commit])
        assert committed is not None
        if publish:
            outputs.publish_outputs(self.farm, committed)
        self.compute.held = {"w1": ()}
        return committed[0]

    def completed(self, frames: str = "1-2") -> Task:
        task = self.submitted(frames)
        while self.story.task(task.id).units_open:
            self.commit(self.placed())
        self.keep(task)
        return self.story.task(task.id)

    def set_task(self, task_id: str, **changes: object) -> None:
        sets = ", ".join(f"{name} = {value!r}" for name, value in changes.items())
        self.sql(f"UPDATE tasks SET {sets} WHERE id = '{task_id}'")

    def empty_queue(self) -> None:
        """Purge it."""
        while deliveries := self.farm.queue.take(100):
            self.farm.queue.acknowledge([delivery.tag for delivery in deliveries])

    def events(self, task_id: str) -> list[str]:
        return [entry.event for entry in self.story.log(task_id)]


def kinds(report: CheckReport) -> list[Kind]:
    return [finding.kind for finding in report.findings]


def mend(bench: Bench, *expected: Kind, **options: Any) -> list[Finding]:
    """Look without mending, look and mend, look again; return what was mended."""
    assert kinds(bench.check(**options)) == list(expected)
    report = bench.check(repair=True, **options)
    assert [(finding.kind, finding.repaired) for finding in report.findings] == [(kind, True) for kind in expected]
    assert report.repaired == len(expected)
    assert bench.check(**options).findings == ()
    return list(report.findings)
