"""The same for messages, outputs, counters and objects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.states import AssetState, TaskState, UnitState
from renderfarm.ports import DeadLetter
from renderfarm.services import tasks
from renderfarm.services.reconcile import objects
from renderfarm.services.reconcile.findings import CheckOptions, Kind, Look
from renderfarm.services.reconcile.objects import DigestSet
from tests.unit.services.check_bench import HOUR, Bench, LetteredQueue, kinds, mend

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
