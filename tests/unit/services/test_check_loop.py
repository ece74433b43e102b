"""What the scheduler looks at now and then: the second look is the next round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.states import UnitState
from renderfarm.errors import Deposed
from renderfarm.services import tasks
from renderfarm.services.reconcile import loop
from renderfarm.services.reconcile.findings import Kind
from renderfarm.services.reconcile.loop import Reconciler
from tests.unit.services.check_bench import HOUR, Bench
from tests.unit.services.story import Story


@pytest.fixture
def bench(story: Story, tmp_path: Path) -> Bench:
    return Bench(story, tmp_path)


def reconciler(bench: Bench) -> Reconciler:
    return Reconciler(bench.farm, bench.story.epoch, wait=bench.wait)


def round_(bench: Bench, loop: Reconciler) -> list[Kind]:
    bench.story.clock.pass_(10)
    return [finding.kind for finding in loop.reconcile_once() if finding.repaired]


def test_what_changes_is_kept(bench: Bench) -> None:
    loop = reconciler(bench)
    task, other = bench.submitted(), bench.submitted()
    bench.story.clock.pass_(60)
    assert loop.keep_statuses() == 2
    bench.story.clock.pass_(60)
    bench.pause(other)
    assert loop.keep_statuses() == 1
    assert bench.statuses.held[other.id].revision == bench.story.task(other.id).revision
    bench.story.clock.pass_(60)
    lease = bench.placed()
    # Again what changed just before the last time: it may have been committed later.
    assert loop.keep_statuses() == 2
    bench.story.clock.pass_(60)
    bench.story.renew(lease, 0.5)
    assert loop.keep_statuses() == 1  # the frame in work goes on although the task does not change
    assert bench.statuses.held[task.id].progress == 25.0


def test_without_a_shared_cache_there_is_nothing_to_keep(bench: Bench) -> None:
    bench.farm = replace(bench.farm, settings=bench.farm.settings.model_copy(update={"redis_url": None}))
    loop = reconciler(bench)
    bench.submitted()
    assert loop.keep_statuses() == 0
    bench.statuses.held.clear()
    assert round_(bench, loop) == round_(bench, loop) == []


def test_a_healthy_farm_is_left_alone(bench: Bench) -> None:
    loop = reconciler(bench)
    task = bench.submitted()
    for _ in range(2):
        lease = bench.placed()
        loop.keep_statuses()
        bench.story.clock.pass_(1)
        bench.story.renew(lease)
        assert loop.reconcile_once() == []
        bench.story.clock.pass_(10)
        assert loop.reconcile_once() == []
        bench.commit(lease)
        loop.keep_statuses()
    assert loop.sweep() == []
    assert "check.repaired" not in bench.events(task.id)


def test_a_status_that_is_stale_in_two_rounds_is_renewed(bench: Bench) -> None:
    loop = reconciler(bench)
    task = bench.submitted()
    bench.pause(task)
    assert round_(bench, loop) == []
    assert round_(bench, loop) == [Kind.STALE_STATUS]
    assert round_(bench, loop) == []
    bench.statuses.held.clear()
    assert round_(bench, loop) == []
    assert round_(bench, loop) == [Kind.MISSING_STATUS]


def test_every_task_has_its_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_TASKS", 2)
    reconciling = reconciler(bench)
    for _ in range(5):
        bench.submitted("1")
    bench.story.clock.pass_(60)
    bench.statuses.held.clear()
    mended = [kind for _ in range(8) for kind in round_(bench, reconciling)]
    assert mended == [Kind.MISSING_STATUS] * 5
    assert len(bench.statuses.held) == 5


def test_a_unit_that_no_worker_knows_in_two_rounds_is_taken_back(bench: Bench) -> None:
    loop = reconciler(bench)
    task = bench.submitted("1")
    lease = bench.placed()
    loop.keep_statuses()
    bench.compute.held = {"w1": ()}
    assert round_(bench, loop) == []
    bench.story.renew(lease)
    assert round_(bench, loop) == [Kind.UNKNOWN_TO_WORKERS]
    assert bench.story.units(task.id)[0].state is UnitState.READY
    assert bench.story.log(task.id)[-1].actor == "scheduler"


def test_a_lost_message_is_sent_again_but_not_all_the_time(bench: Bench) -> None:
    loop = reconciler(bench)
    task = bench.story.submit(bench.asset())
    bench.keep(task)
    bench.relay()
    bench.empty_queue()
    bench.story.clock.pass_(60)
    sent = []
    for _ in range(70):
        bench.seen_worker()
        sent += round_(bench, loop)
        bench.keep(task)
        bench.relay()
        bench.empty_queue()  # whoever should take it in does not
        bench.seen_worker()
    assert sent == [Kind.LOST_MESSAGE] * 2


def test_a_deposed_scheduler_mends_nothing(bench: Bench) -> None:
    loop = reconciler(bench)
    task = bench.submitted("1")
    bench.placed()
    loop.keep_statuses()
    bench.compute.held = {"w1": ()}
    assert round_(bench, loop) == []
    bench.lead()
    with pytest.raises(Deposed):
        round_(bench, loop)
    assert bench.story.units(task.id)[0].state is UnitState.RUNNING


def test_the_sweep_mends_counters_and_objects(bench: Bench) -> None:
    task = bench.completed("1-3")
    orphan = bench.blob(b"nobody's")
    bench.age(orphan, 2 * HOUR)
    bench.lose(bench.story.outputs(task.id)[0].digest)
    bench.set_task(task.id, frames_done=7)
    findings = reconciler(bench).sweep()
    assert [finding.kind for finding in findings if finding.repaired] == [
        Kind.WRONG_COUNTERS,
        Kind.MISSING_OBJECT,
        Kind.ORPHANED_OBJECT,
    ]
    assert bench.story.task(task.id).frames_done == 2
    assert reconciler(bench).sweep() == []


def test_a_store_that_is_not_there_is_not_rendered_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_RENDER_AGAIN_MAX", 2)
    task = bench.completed("1-3")
    for output in bench.story.outputs(task.id):
        bench.lose(output.digest)
    findings = reconciler(bench).sweep()
    assert [(finding.kind, finding.repaired) for finding in findings] == [(Kind.MISSING_OBJECT, False)] * 3
    assert len(bench.story.outputs(task.id)) == 3
    # Whoever knows better says so.
    assert bench.check(repair=True).repaired == 3
    assert tasks.get_task(bench.farm, LOCAL_OWNER, task.id).units_open == 3
