"""What happens when attempts fail, workers vanish, and late results arrive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renderfarm.domain.failures import RULES, Failure, FailureKind
from renderfarm.domain.policy import Slot
from renderfarm.domain.states import AssetState, TaskState, UnitState
from renderfarm.errors import Deposed, LeaseLost
from renderfarm.services import failing, placement, results
from tests.unit.fakes import scene_facts
from tests.unit.services.story import BLENDER, REPORT, Clock, Story


def test_a_crash_is_tried_again_after_a_while_on_another_worker(story: Story, clock: Clock) -> None:
    # T: running > ready (backoff) > running on the other > succeeded
    task = story.admitted(frames="1")
    [lease] = story.place("w1", "w2")
    story.fail(lease)
    assert story.place("w1", "w2") == []
    clock.pass_(60)
    [again] = story.place("w1", "w2")
    assert (again.attempt, again.worker_id) == (2, "w2")
    story.commit(again)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_it_goes_back_to_the_same_worker_when_there_is_no_other(story: Story, clock: Clock) -> None:
    story.admitted(frames="1")
    [lease] = story.place("w1")
    story.fail(lease)
    clock.pass_(60)
    [again] = story.place("w1")
    assert again.worker_id == "w1"


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_has_its_own_number_of_attempts(story: Story, clock: Clock, kind: FailureKind) -> None:
    task = story.admitted(frames="1")
    attempts = 0
    while leases := story.place():
        attempts += 1
        story.fail(leases[0], kind)
        clock.pass_(120)
    assert attempts == RULES[kind].attempts_max
    failed = story.task(task.id)
    assert failed.state is TaskState.FAILED
    assert failed.failure is not None
    assert failed.failure.kind is kind
    assert "frame 1" in failed.failure.message


def test_one_bad_frame_does_not_stop_the_others(story: Story) -> None:
    task = story.admitted(frames="1-3")
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    assert story.task(task.id).state is TaskState.RUNNING
    story.run_all()
    failed = story.task(task.id)
    assert (failed.state, failed.frames_done, failed.units_failed) == (TaskState.FAILED, 2, 1)


def test_a_lease_that_is_not_renewed_is_lost_at_no_cost(story: Story, clock: Clock) -> None:
    story.admitted(frames="1")
    [lease] = story.place()
    clock.pass_(10)
    story.renew(lease, 0.1)
    clock.pass_(10)
    assert placement.expire_leases(story.farm, story.epoch) == []
    clock.pass_(6)
    assert len(placement.expire_leases(story.farm, story.epoch)) == 1
    clock.pass_(60)
    [again] = story.place()
    assert again.worker_id == "w1"  # lost blames nobody


def test_a_worker_that_wakes_up_late_commits_nothing(story: Story, clock: Clock) -> None:
    task = story.admitted(frames="1")
    [late] = story.place("w1")
    clock.pass_(20)
    placement.expire_leases(story.farm, story.epoch)
    clock.pass_(60)
    [second] = story.place("w2")
    for write in (
        lambda: story.begin(late),
        lambda: story.commit_frame(late, 1),
        lambda: story.renew(late, 0.5),
        lambda: story.fail(late),
    ):
        with pytest.raises(LeaseLost):
            write()
    story.commit(second)
    with pytest.raises(LeaseLost):
        story.commit_frame(late, 1)
    [output] = story.outputs(task.id)
    assert output.attempt == 2


def test_a_known_loss_is_taken_back_at_once(story: Story) -> None:
    story.admitted(frames="1-2")
    story.place("w1", "w2")
    lost = placement.lose_worker(story.farm, story.epoch, "w1", "its process died")
    assert [unit.worker_id for unit in lost] == ["w1"]


def test_a_frame_committed_in_a_chunk_is_not_rendered_again(story: Story, clock: Clock) -> None:
    task = story.admitted(frames="1-2")
    # A unit of two frames, as chunks will be.
    first, second = story.units(task.id)
    with story.farm.database.write() as tx:
        tx.units.update(first, replace(first, frames=(1, 2)))
        tx.units.cancel_open(task.id)
        cancelled = tx.units.get(first.id)
        assert cancelled is not None
        tx.units.update(cancelled, replace(cancelled, state=UnitState.READY))
    [lease] = story.place()
    story.commit_frame(lease, 1)
    story.fail(lease)
    clock.pass_(60)
    [again] = story.place()
    assert story.begin(again).frames == (2,)
    assert second.frames == (2,)


def test_the_older_schedulers_writes_are_refused(story: Story) -> None:
    story.admitted(frames="1-2")
    old = story.epoch
    [lease] = story.place()
    assert story.lead() == old + 1
    slot = Slot(worker_id="w2", free=True, blenders=frozenset({BLENDER}), gpus=0, open_scene=None)
    with pytest.raises(Deposed):
        placement.place_units(story.farm, old, [slot], {"w2": "node"})
    with pytest.raises(Deposed):
        placement.lose_worker(story.farm, old, "w1", "a guess")
    # What the older one had placed goes on: its worker's result is good.
    story.commit(lease)


def test_an_inspection_makes_the_asset_ready(story: Story) -> None:
    story.lead()
    story.worker()
    asset = story.asset(state=AssetState.PENDING)
    story.farm.queue.publish([("asset", asset.id), ("asset", asset.id)])
    story.admit()
    [lease] = story.place("w1", "w2")
    results.commit_inspection(story.farm, lease, scene_facts(), REPORT)
    with story.farm.database.read() as tx:
        inspected = tx.assets.get(asset.id)
    assert inspected is not None
    assert (inspected.state, inspected.facts) == (AssetState.READY, scene_facts())


def test_a_file_that_blender_cannot_open_is_rejected_with_the_reason(story: Story) -> None:
    story.lead()
    story.worker()
    asset = story.asset(state=AssetState.PENDING)
    story.farm.queue.publish([("asset", asset.id)])
    story.admit()
    [lease] = story.place()
    failing.fail(story.farm, lease, Failure(kind=FailureKind.BAD_FILE, message="not a blend file"), REPORT)
    with story.farm.database.read() as tx:
        rejected = tx.assets.get(asset.id)
    assert rejected is not None
    assert rejected.state is AssetState.REJECTED
    assert rejected.failure == Failure(kind=FailureKind.BAD_FILE, message="not a blend file")


def test_a_file_from_a_newer_blender_is_rejected(story: Story) -> None:
    story.lead()
    story.worker(versions=("4.2.0",))
    asset = story.asset(state=AssetState.PENDING)
    story.farm.queue.publish([("asset", asset.id)])
    story.admit()
    with story.farm.database.read() as tx:
        rejected = tx.assets.get(asset.id)
    assert rejected is not None
    assert rejected.state is AssetState.REJECTED


def test_a_commit_whose_answer_was_lost_may_be_asked_for_again(story: Story) -> None:
    task = story.admitted(frames="1-2")
    first, _ = story.units(task.id)
    with story.farm.database.write() as tx:
        tx.units.update(first, replace(first, frames=(1, 2)))
    [lease] = story.place()
    told = story.commit_frame(lease, 1)
    assert story.commit_frame(lease, 1) == told
    assert story.task(task.id).frames_done == 1
