"""Each way in which two places can disagree: planted, found, mended, gone. In a healthy farm there is none."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from renderfarm.auth import LOCAL_OWNER, Permission
from renderfarm.cache import RedisStatuses
from renderfarm.cache.redis_link import RedisLink
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.errors import Forbidden, InvalidInput
from renderfarm.services import failing, tasks
from renderfarm.services.check import check_farm
from renderfarm.services.reconcile import counters, objects, statuses
from renderfarm.services.reconcile.findings import Kind
from tests.servers import redis_url
from tests.unit.services.check_bench import HOUR, Bench, kinds, mend

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
    failing.fail(bench.farm, lease, Failure(kind=FailureKind.CRASH, message="it broke"), failed)
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
