"""Each way in which two places can disagree: planted, found, mended, gone. In a healthy farm there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from renderfarm.auth import LOCAL_OWNER, Permission
from renderfarm.cache import RedisStatuses
from renderfarm.cache.redis_link import RedisLink
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, Task, TaskStatus
from renderfarm.domain.states import AssetState, TaskState, UnitState
from renderfarm.errors import FarmUnavailable, Forbidden, InvalidInput
from renderfarm.ports import DeadLetter
from renderfarm.services import admission, outputs, placement, progress, results, tasks
from renderfarm.services.check import check_farm
from renderfarm.services.reconcile import counters, objects, statuses
from renderfarm.services.reconcile.findings import CheckOptions, CheckReport, Finding, Kind, Look
from renderfarm.services.reconcile.objects import DigestSet
from renderfarm.services.results import FrameCommit
from tests.servers import redis_url
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


@pytest.fixture
def bench(story: Story, tmp_path: Path) -> Bench:
    return Bench(story, tmp_path)


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


# --- a healthy farm ------------------------------------------------------------------------------------------


def test_a_healthy_farm_has_no_findings_at_any_step(bench: Bench) -> None:
    def assert_healthy() -> None:
        report = bench.check()
        assert report.findings == ()
        assert not report.not_looked_at

    assert_healthy()
    task = bench.submitted()
    assert_healthy()
    lease = bench.placed()
    bench.keep(task)
    assert_healthy()
    bench.commit(lease)
    bench.keep(task)
    assert_healthy()
    bench.commit(bench.placed())
    bench.keep(task)
    assert_healthy()
    cancelled = tasks.cancel_task(bench.farm, LOCAL_OWNER, bench.submitted().id)
    bench.keep(cancelled)
    assert_healthy()


def test_a_report_says_what_was_looked_at(bench: Bench) -> None:
    bench.completed("1-3")
    report = bench.check()
    assert report.looked_at == {
        "workers": 1,
        "running_units": 0,
        "tasks": 1,
        "blobs": 7,
        "asset_files": 1,
        "outputs": 3,
        "logs": 3,
    }
    assert "blobs" not in bench.check(objects=False).looked_at


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_everything_is_looked_at_in_whatever_portions(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    failed = AttemptReport(log_digest=bench.blob(b"it broke"), peak_memory_bytes=None)
    task = bench.submitted("1-2")
    lease = bench.placed()
    results.fail(bench.farm, lease, Failure(kind=FailureKind.CRASH, message="it broke"), failed)
    bench.story.clock.pass_(60)
    while bench.story.task(task.id).units_open:
        bench.commit(bench.placed())
    bench.completed("1-2")
    bench.keep(task)
    whole = bench.check()
    for module in (objects, statuses):
        monkeypatch.setattr(module, "_BATCH", batch)
    monkeypatch.setattr(counters, "_UNITS", batch)
    assert bench.check().looked_at == whole.looked_at
    assert (whole.looked_at["logs"], whole.looked_at["tasks"], whole.findings) == (5, 2, ())
    bench.lose(failed.log_digest or "")
    bench.set_task(task.id, frames_done=0)
    assert kinds(bench.check()) == [Kind.WRONG_COUNTERS, Kind.MISSING_OBJECT]


def test_who_may_look_and_who_may_mend(bench: Bench) -> None:
    guest = replace(LOCAL_OWNER, name="guest", permissions=frozenset({Permission.FARM_READ}))
    assert check_farm(bench.farm, guest, repair=False, wait=bench.wait).findings == ()
    with pytest.raises(Forbidden, match=r"farm\.repair"):
        check_farm(bench.farm, guest, repair=True, wait=bench.wait)
    with pytest.raises(Forbidden, match=r"farm\.read"):
        check_farm(bench.farm, replace(guest, permissions=frozenset()), repair=False, wait=bench.wait)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"message_age_s": 0.0}, "message_age_s must be above 0, not 0.0"),
        ({"message_age_s": float("nan")}, "message_age_s must be above 0, not nan"),
        ({"publish_age_s": float("inf")}, "publish_age_s must be above 0, not inf"),
        ({"findings_max": -1}, "findings_max must be above 0, not -1"),
        ({"second_look_s": 1.0}, "second_look_s must be at least 2: a status may be so old"),
        ({"object_grace_s": 10.0}, "object_grace_s must be at least 120, not 10: a worker may take so long to commit"),
    ],
)
def test_options_that_cannot_be_meant(bench: Bench, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        bench.check(**options)


def test_no_more_findings_than_asked_for(bench: Bench) -> None:
    for number in range(3):
        bench.age(bench.blob(b"%d" % number), 2 * HOUR)
    report = bench.check(findings_max=2, repair=True)
    assert (len(report.findings), report.more) == (2, frozenset({Kind.ORPHANED_OBJECT}))
    report = bench.check(findings_max=2, repair=True)
    assert (len(report.findings), report.more) == (1, frozenset())


# --- statuses ------------------------------------------------------------------------------------------------


def test_a_stale_status(bench: Bench) -> None:
    task = bench.submitted()
    tasks.pause_task(bench.farm, LOCAL_OWNER, task.id)
    [finding] = mend(bench, Kind.STALE_STATUS)
    assert finding.subject.task_id == task.id
    assert bench.statuses.held[task.id].status is TaskState.PAUSED


def test_a_status_that_is_renewed_all_the_time_is_not_stale(bench: Bench) -> None:
    # Behind at both looks, but at the second it has what the database had at the first.
    task = bench.submitted()
    tasks.pause_task(bench.farm, LOCAL_OWNER, task.id)

    def between() -> None:
        bench.keep(task)
        tasks.resume_task(bench.farm, LOCAL_OWNER, task.id)

    bench.between = between
    assert bench.check().findings == ()


def test_a_missing_status(bench: Bench) -> None:
    bench.completed()  # of an ended task nobody needs one
    task = bench.submitted()
    bench.statuses.held.clear()
    [finding] = mend(bench, Kind.MISSING_STATUS)
    assert finding.subject.task_id == task.id


def test_a_task_that_changes_all_the_time_may_be_without_a_status(bench: Bench) -> None:
    task = bench.submitted()
    bench.statuses.held.clear()
    bench.between = lambda: bench.pause(task)
    assert bench.check().findings == ()


def test_a_cache_of_one_process_need_not_have_everything(bench: Bench) -> None:
    task = bench.submitted()
    settings = bench.farm.settings.model_copy(update={"redis_url": None})
    bench.farm = replace(bench.farm, settings=settings)
    bench.statuses.held.clear()
    assert bench.check().findings == ()
    bench.keep(task)
    tasks.pause_task(bench.farm, LOCAL_OWNER, task.id)
    assert kinds(bench.check()) == [Kind.STALE_STATUS]  # it would be told


def test_a_cache_that_is_away_cannot_be_looked_at(bench: Bench) -> None:
    bench.statuses.down = True
    report = bench.check()
    assert report.not_looked_at == dict.fromkeys([Kind.STALE_STATUS, Kind.MISSING_STATUS], "the cache does not answer")
    assert report.findings == ()


def test_a_redis_that_was_not_told_and_one_that_was_flushed(bench: Bench) -> None:
    link = RedisLink(redis_url(), prefix=f"renderfarm-test-check-{os.getpid()}")
    bench.farm = replace(bench.farm, statuses=RedisStatuses(link))
    task = bench.submitted()
    try:
        assert bench.check().findings == ()
        bench.pause(task)
        mend(bench, Kind.STALE_STATUS)
        link.client.delete(link.key("status", task.id))
        mend(bench, Kind.MISSING_STATUS)
        assert bench.farm.statuses.kept([task.id]) == {task.id: bench.story.task(task.id).revision}
    finally:
        link.client.delete(link.key("status", task.id))
        link.close()


# --- leases --------------------------------------------------------------------------------------------------


def test_an_orphaned_lease(bench: Bench) -> None:
    # U: running > ready (lost) although no scheduler looks
    task = bench.submitted("1")
    lease = bench.placed()
    bench.keep(task)
    bench.compute.held = {}
    bench.story.clock.pass_(60)
    [finding] = mend(bench, Kind.ORPHANED_LEASE)
    assert (finding.subject.unit_id, finding.subject.attempt) == (lease.unit_id, 1)
    [unit] = bench.story.units(task.id)
    assert (unit.state, unit.failures, unit.worker_id) == (UnitState.READY, ("lost",), None)
    told = [entry for entry in bench.story.log(task.id) if entry.event == "check.repaired"]
    assert [(entry.unit_id, entry.actor) for entry in told] == [(unit.id, "user:local")]


def test_a_lease_that_is_renewed_meanwhile_is_no_finding(bench: Bench) -> None:
    task = bench.submitted("1")
    lease = bench.placed()
    bench.keep(task)
    bench.story.clock.pass_(60)  # a laptop wakes up
    bench.between = lambda: bench.story.renew(lease)
    assert bench.check().findings == ()


@pytest.mark.parametrize("gone", [False, True])
def test_a_unit_that_no_worker_knows(bench: Bench, gone: bool) -> None:
    task = bench.submitted("1")
    lease = bench.placed()
    bench.keep(task)
    if gone:
        bench.compute.held = {}
        with bench.farm.database.write() as tx:
            tx.workers.all_gone()
    else:
        bench.compute.held = {"w1": (replace(lease, attempt=7),)}
        bench.between = lambda: setattr(bench.compute, "held", {"w1": ()})
    [finding] = mend(bench, Kind.UNKNOWN_TO_WORKERS)
    assert ("which is gone" in finding.detail) is gone
    assert bench.story.units(task.id)[0].state is UnitState.READY
    assert not bench.story.task(task.id).units_failed


def test_a_lease_on_its_way_to_its_worker_is_no_finding(bench: Bench) -> None:
    task = bench.submitted("1")
    lease = bench.placed()
    bench.keep(task)
    bench.compute.held = {"w1": ()}
    bench.between = lambda: setattr(bench.compute, "held", {"w1": (lease,)})
    assert bench.check().findings == ()


def test_a_silent_worker_may_be_at_work(bench: Bench) -> None:
    task = bench.submitted("1")
    bench.placed()
    bench.keep(task)
    bench.compute.held = {}
    assert bench.check().findings == ()


def test_workers_that_cannot_be_asked(bench: Bench) -> None:
    bench.compute.held = None
    report = bench.check()
    assert set(report.not_looked_at) == {Kind.UNKNOWN_TO_WORKERS, Kind.UNKNOWN_TO_DATABASE}


def test_a_lease_that_the_database_has_moved_on_from(bench: Bench) -> None:
    task = bench.submitted("1")
    lease = bench.placed()
    tasks.cancel_task(bench.farm, LOCAL_OWNER, task.id)
    bench.keep(task)
    assert kinds(bench.check()) == [Kind.UNKNOWN_TO_DATABASE]
    # Without a scheduler nobody tells the worker.
    report = bench.check(repair=True)
    assert [(finding.kind, finding.repaired) for finding in report.findings] == [(Kind.UNKNOWN_TO_DATABASE, False)]
    bench.compute.on_wake = lambda: setattr(bench.compute, "held", {"w1": ()})
    bench.compute.held = {"w1": (lease,)}
    mend(bench, Kind.UNKNOWN_TO_DATABASE)


def test_a_worker_that_tidies_up_is_no_finding(bench: Bench) -> None:
    task = bench.submitted("1")
    lease = bench.placed()
    bench.commit(lease)
    bench.keep(task)
    bench.compute.held = {"w1": (lease,)}
    assert bench.check().findings == ()


# --- messages ------------------------------------------------------------------------------------------------


def test_an_outbox_row_that_was_never_sent(bench: Bench) -> None:
    task = bench.story.submit(bench.asset())
    bench.keep(task)
    assert bench.check().findings == ()
    bench.story.clock.pass_(31)
    assert kinds(bench.check()) == [Kind.UNSENT_MESSAGE]
    assert [finding.repaired for finding in bench.check(repair=True).findings] == [False]
    bench.compute.on_wake = bench.story.admit

    bench.between = lambda: bench.keep(task)
    mend(bench, Kind.UNSENT_MESSAGE)
    assert bench.story.task(task.id).units_total == 3


def test_a_queue_that_was_purged(bench: Bench) -> None:
    task = bench.story.submit(bench.asset())
    pending = bench.asset(AssetState.PENDING)
    with bench.farm.database.write() as tx:
        tx.outbox.add("asset", pending.id, bench.story.clock())
    bench.keep(task)
    bench.relay()
    bench.empty_queue()
    bench.story.clock.pass_(20)
    assert bench.check().findings == ()
    bench.story.clock.pass_(11)
    bench.seen_worker()
    assert kinds(bench.check()) == [Kind.LOST_MESSAGE, Kind.LOST_MESSAGE]
    report = bench.check(repair=True)
    assert [finding.repaired for finding in report.findings] == [True, True]
    bench.story.admit()
    bench.keep(task)
    assert bench.check().findings == ()
    assert bench.story.task(task.id).units_total == 3
    assert "check.repaired" in bench.events(task.id)
    with bench.farm.database.read() as tx:
        assert tx.units.inspection(pending.id) is not None


def test_a_message_that_waits_for_a_worker_is_not_lost(bench: Bench) -> None:
    with bench.farm.database.write() as tx:
        tx.workers.all_gone()
    task = bench.story.submit(bench.asset())
    bench.keep(task)
    bench.relay()
    bench.story.clock.pass_(600)
    assert bench.check().findings == ()


def test_a_message_in_a_long_queue_is_not_lost_until_others_overtake_it(bench: Bench) -> None:
    first = bench.story.submit(bench.asset())
    bench.keep(first)
    bench.relay()
    bench.empty_queue()
    bench.story.clock.pass_(20)
    second = bench.submitted()
    bench.story.clock.pass_(20)
    bench.seen_worker()
    # The queue moves, and what has been taken in was not sent much later.
    assert bench.check().findings == ()
    third = bench.submitted()
    bench.keep(second, third)
    [finding] = bench.check().findings
    assert (finding.kind, finding.subject.task_id) == (Kind.LOST_MESSAGE, first.id)


def test_a_dead_letter_is_for_people(bench: Bench) -> None:
    task = bench.story.submit(bench.asset())
    bench.keep(task)
    bench.relay()
    bench.empty_queue()
    letter = DeadLetter(id="d1", topic="task", key=task.id, reason="delivered 5 times", died_at=0.0)
    bench.farm = replace(bench.farm, queue=LetteredQueue(bench.farm.queue, [letter]))
    bench.story.clock.pass_(31)
    bench.seen_worker()
    [finding] = bench.check(repair=True).findings
    assert (finding.kind, finding.repairable, finding.repaired) == (Kind.LOST_MESSAGE, False, False)
    assert finding.detail.endswith(
        "was put aside: delivered 5 times; once that is mended: renderfarm dead replay --id d1"
    )


# --- outputs and counters ------------------------------------------------------------------------------------


def test_an_output_that_has_not_appeared(bench: Bench) -> None:
    task = bench.submitted("1")
    output = bench.commit(bench.placed(), publish=False)
    bench.keep(task)
    bench.story.clock.pass_(50)
    assert bench.check().findings == ()
    bench.story.clock.pass_(11)
    [finding] = mend(bench, Kind.UNPUBLISHED_OUTPUT)
    assert finding.subject.output_id == output.id
    assert (bench.farm.settings.data / "objects" / "outputs" / task.id / "0001.png").read_bytes() == b"frame 1"


def test_an_output_that_cannot_appear_is_rendered_again(bench: Bench) -> None:
    task = bench.submitted("1")
    output = bench.commit(bench.placed(), publish=False)
    bench.keep(task)
    bench.lose(output.digest)
    bench.story.clock.pass_(61)
    report = bench.check(repair=True)
    assert [(finding.kind, finding.repaired) for finding in report.findings] == [
        (Kind.UNPUBLISHED_OUTPUT, False),
        (Kind.MISSING_OBJECT, True),
    ]
    assert "it cannot be mended now: no object" in report.findings[0].detail
    bench.commit(bench.placed())
    bench.keep(task)
    assert bench.check().findings == ()


@pytest.mark.parametrize(
    "wrong", [{"units_open": 5}, {"units_failed": 1}, {"units_total": 9}, {"frames_done": 0}], ids=str
)
def test_wrong_counters(bench: Bench, wrong: dict[str, int]) -> None:
    task = bench.submitted("1-3")
    bench.commit(bench.placed())
    right = bench.story.task(task.id)
    bench.set_task(task.id, **wrong)
    bench.keep(task)
    assert kinds(bench.check()) == [Kind.WRONG_COUNTERS]
    [finding] = mend(bench, Kind.WRONG_COUNTERS)
    assert next(iter(wrong)) in finding.detail
    mended = bench.story.task(task.id)
    assert replace(mended, revision=0, updated_at=0.0) == replace(right, revision=0, updated_at=0.0)
    assert "check.repaired" in bench.events(task.id)


def test_a_task_that_waits_for_units_that_have_all_ended(bench: Bench) -> None:
    # T: running > completed
    task = bench.submitted("1-2")
    bench.set_task(task.id, units_open=3)
    for _ in range(2):
        bench.commit(bench.placed())
    bench.keep(task)
    assert bench.story.task(task.id).state is TaskState.RUNNING
    mend(bench, Kind.WRONG_COUNTERS)
    assert bench.story.task(task.id).state is TaskState.COMPLETED


def test_a_task_that_ended_before_its_units(bench: Bench) -> None:
    # T: cancelled (as it seemed) > queued > running > completed
    task = bench.submitted("1-2")
    bench.set_task(task.id, units_open=1)
    bench.commit(bench.placed())
    bench.keep(task)
    mend(bench, Kind.WRONG_COUNTERS)
    assert bench.story.task(task.id).state is TaskState.QUEUED
    bench.commit(bench.placed())
    ended = bench.story.task(task.id)
    assert (ended.state, ended.frames_done) == (TaskState.COMPLETED, 2)


def test_a_cancelled_task_whose_units_go_on(bench: Bench) -> None:
    # U: ready > cancelled
    task = bench.submitted("1-2")
    tasks.cancel_task(bench.farm, LOCAL_OWNER, task.id)
    bench.keep(task)
    bench.sql(f"UPDATE units SET state = 'ready' WHERE task_id = '{task.id}' AND position = 1")
    mend(bench, Kind.WRONG_COUNTERS)
    assert [unit.state for unit in bench.story.units(task.id)] == [UnitState.CANCELLED] * 2
    assert bench.story.task(task.id).state is TaskState.CANCELLED


def test_counters_of_a_task_at_work_are_right(bench: Bench) -> None:
    task = bench.submitted("1-2")
    lease = bench.placed()
    bench.set_task(task.id, units_open=3)
    bench.keep(task)

    def between() -> None:
        bench.set_task(task.id, units_open=2)
        bench.commit(lease)
        bench.keep(task)

    bench.between = between
    assert bench.check().findings == ()


# --- objects -------------------------------------------------------------------------------------------------


def test_an_output_whose_bytes_are_lost_is_rendered_again(bench: Bench) -> None:
    # T: completed > queued > running > completed, with one frame rendered twice
    task = bench.completed("1-2")
    first, second = bench.story.outputs(task.id)
    bench.lose(first.digest)
    [finding] = mend(bench, Kind.MISSING_OBJECT)
    assert finding.subject.output_id == first.id
    assert bench.story.outputs(task.id) == [second]
    assert not (bench.farm.settings.data / "objects" / "outputs" / task.id / "0001.png").exists()
    bench.commit(bench.placed())
    ended = bench.story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_open) == (TaskState.COMPLETED, 2, 0)
    bench.keep(task)
    assert bench.check().findings == ()
    assert "check.repaired" in bench.events(task.id)


def test_two_outputs_of_the_same_bytes(bench: Bench) -> None:
    task = bench.submitted("1-2")
    first, second = (bench.commit(bench.placed(), b"black") for _ in range(2))
    assert first.digest == second.digest
    bench.keep(task)
    bench.lose(first.digest)
    mend(bench, Kind.MISSING_OBJECT, Kind.MISSING_OBJECT)
    for _ in range(2):
        bench.commit(bench.placed(), b"black")
    assert bench.story.task(task.id).state is TaskState.COMPLETED


def test_an_assets_file_that_is_lost_is_for_people(bench: Bench) -> None:
    task = bench.completed("1")
    with bench.farm.database.read() as tx:
        asset = tx.assets.get(task.asset_id)
    assert asset is not None
    bench.lose(asset.files[0].digest)
    [finding] = bench.check(repair=True).findings
    assert (finding.kind, finding.repairable, finding.repaired) == (Kind.MISSING_OBJECT, False, False)
    assert finding.detail == f"file shot.blend of asset {asset.id} is not in the object store: upload the asset again"


def test_a_log_that_is_lost_is_forgotten(bench: Bench) -> None:
    task = bench.completed("1")
    [unit] = bench.story.units(task.id)
    with bench.farm.database.read() as tx:
        attempt = tx.attempts.get(unit.id, 1)
    assert attempt is not None
    bench.lose(attempt.log_digest or "")
    mend(bench, Kind.MISSING_OBJECT)
    with bench.farm.database.read() as tx:
        assert tx.attempts.get(unit.id, 1) == replace(attempt, log_digest=None)


def test_an_object_without_a_row(bench: Bench) -> None:
    bench.completed("1")
    for blob in bench.farm.objects.blobs():
        bench.age(blob.digest, 2 * HOUR)
    orphan, young = bench.blob(b"nobody's"), bench.blob(b"on its way")
    bench.age(orphan, HOUR + 1)
    bench.age(young, HOUR - 1)
    [finding] = mend(bench, Kind.ORPHANED_OBJECT)
    assert finding.subject.digest == orphan
    assert bench.farm.objects.has(young)


def test_an_object_that_is_claimed_in_the_last_moment_stays(bench: Bench) -> None:
    task = bench.submitted("1")
    lease = bench.placed()
    orphan = bench.blob(b"picture")
    bench.age(orphan, 2 * HOUR)
    [finding] = [found for found in bench.check().findings if found.kind is Kind.ORPHANED_OBJECT]
    bench.commit(lease, b"picture")
    bench.keep(task)
    bench.age(orphan, 2 * HOUR)
    look = Look(farm=bench.farm, options=CheckOptions(), actor="test", wait=bench.wait)
    assert objects.remove(look, finding)
    assert bench.farm.objects.has(orphan)


def test_the_digests_of_a_store() -> None:
    digests = [f"{number * 7919:064x}"[::-1] for number in range(5000)]
    known = DigestSet()
    for digest in digests[::2]:
        known.add(digest)
    assert [digest in known for digest in digests] == [number % 2 == 0 for number in range(5000)]
    known.add(digests[1])
    assert digests[1] in known
