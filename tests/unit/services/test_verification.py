"""Warm frames are compared with cold ones, and a difference ends the keeping of render data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Unit, UnitKind
from renderfarm.domain.paces import Paces
from renderfarm.domain.render_settings import PersistentData
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.domain.verification import saving_min, should_verify
from renderfarm.errors import LeaseLost
from renderfarm.services import placement, tasks, verification
from renderfarm.services.retries import retry_task
from tests.unit.services.story import REPORT, Story


def lease_of(unit: Unit) -> Lease:
    return Lease(
        unit_id=unit.id,
        task_id=unit.task_id,
        attempt=unit.attempt,
        epoch=unit.epoch,
        worker_id=unit.worker_id or "",
    )


def verifications(story: Story, task_id: str) -> list[Unit]:
    return [unit for unit in story.units(task_id) if unit.kind is UnitKind.VERIFY]


def warm_until_verified(story: Story, task_id: str) -> Lease:
    """Render warm on w1 until there is something to verify; return the lease of that on w2."""
    while not verifications(story, task_id):
        [lease] = story.place("w1")
        story.commit(lease, warm=True)
    leases = story.place("w1", "w2")
    [verify] = [unit.id for unit in verifications(story, task_id)]
    [lease] = [lease for lease in leases if lease.unit_id == verify]
    return lease


def commit_others(story: Story, task_id: str, lease: Lease, *, warm: bool) -> None:
    """Commit what runs beside a verification, and all that is ready."""
    for unit in story.units(task_id):
        if unit.state is UnitState.RUNNING and unit.id != lease.unit_id:
            story.commit(lease_of(unit), warm=warm)
    while leases := story.place("w1"):
        for one in leases:
            story.commit(one, warm=warm)


def finish(story: Story, lease: Lease, difference: str | None) -> None:
    compared = verification.reference(story.farm, story.begin(lease).unit)
    verification.commit_verification(story.farm, lease, compared, difference, REPORT)


def test_the_first_warm_frame_is_verified_by_another_worker(story: Story) -> None:
    task = story.admitted(frames="1-20")
    lease = warm_until_verified(story, task.id)
    assert lease.worker_id == "w2"
    assert story.task(task.id).units_total == 21


def test_a_frame_that_is_the_same_changes_nothing(story: Story) -> None:
    task = story.admitted(frames="1-10")
    lease = warm_until_verified(story, task.id)
    finish(story, lease, None)
    commit_others(story, task.id, lease, warm=False)
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, ended.cold, ended.verifications) == (TaskState.COMPLETED, 10, False, 1)
    assert any("is the same" in entry.reason for entry in story.log(task.id))


def test_a_task_waits_for_its_verification(story: Story) -> None:
    task = story.admitted(frames="1-8")
    lease = warm_until_verified(story, task.id)
    commit_others(story, task.id, lease, warm=False)
    waiting = story.task(task.id)
    assert (waiting.state, waiting.frames_done, waiting.units_open) == (TaskState.RUNNING, 8, 1)
    finish(story, lease, None)
    assert story.task(task.id).state is TaskState.COMPLETED


def test_a_difference_lets_the_task_go_cold_and_renders_warm_frames_again(story: Story) -> None:
    task = story.admitted(frames="1-10")
    [cold_lease] = story.place("w1")
    story.commit(cold_lease)  # the first frame of a session is cold
    lease = warm_until_verified(story, task.id)
    finish(story, lease, "frame 2: 0002.png differs")
    now = story.task(task.id)
    assert (now.cold, now.frames_done) == (True, 1)
    assert [output.frame for output in story.outputs(task.id)] == [1]
    [entry] = [entry for entry in story.log(task.id) if entry.event == "task.cold"]
    assert "0002.png differs" in entry.reason
    story.run_all()
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done, len(story.outputs(task.id))) == (TaskState.COMPLETED, 10, 10)


def test_what_renders_warm_meanwhile_is_not_taken(story: Story) -> None:
    # T: running (warm) > ready (given up) > running (cold) > succeeded
    task = story.admitted(frames="1-10")
    lease = warm_until_verified(story, task.id)
    [other] = [unit for unit in story.units(task.id) if unit.state is UnitState.RUNNING and unit.id != lease.unit_id]
    finish(story, lease, "it differs")
    with pytest.raises(LeaseLost):
        story.commit_frame(lease_of(other), other.frames[0], warm=True)
    assert {unit.state for unit in story.units(task.id) if unit.id == other.id} == {UnitState.READY}


def test_a_difference_that_comes_last_does_not_let_the_task_end(story: Story) -> None:
    task = story.admitted(frames="1-8")
    lease = warm_until_verified(story, task.id)
    commit_others(story, task.id, lease, warm=True)
    finish(story, lease, "it differs")
    now = story.task(task.id)
    assert (now.state, now.frames_done) == (TaskState.RUNNING, 0)
    assert not [entry for entry in story.log(task.id) if entry.new == TaskState.COMPLETED]


def test_an_undone_frame_is_not_judged(story: Story) -> None:
    task = story.admitted(frames="1-10")
    lease = warm_until_verified(story, task.id)
    compared = verification.reference(story.farm, story.begin(lease).unit)
    retry_task(story.farm, LOCAL_OWNER, task.id, str(compared[0].frame))
    verification.commit_verification(story.farm, lease, compared, "it differs", REPORT)
    assert not story.task(task.id).cold


def test_a_verification_of_nothing_ends(story: Story) -> None:
    task = story.admitted(frames="1-10")
    lease = warm_until_verified(story, task.id)
    [frame] = story.begin(lease).unit.frames
    retry_task(story.farm, LOCAL_OWNER, task.id, str(frame))
    finish(story, lease, None)
    assert [unit.state for unit in verifications(story, task.id)] == [UnitState.SUCCEEDED]


@pytest.mark.parametrize("setting", [PersistentData.ON, PersistentData.OFF, PersistentData.FILE])
def test_only_what_the_farm_keeps_by_itself_is_verified(story: Story, setting: PersistentData) -> None:
    task = story.admitted(frames="1-10", persistent_data=setting)
    while leases := story.place("w1"):
        for lease in leases:
            story.commit(lease, warm=True)
    ended = story.task(task.id)
    assert (ended.state, ended.verifications) == (TaskState.COMPLETED, 0)


@pytest.mark.parametrize(("frames", "firsts"), [(7, 0), (8, 1), (199, 1), (200, 2)])
def test_longer_tasks_have_more_of_their_first_frames_verified(story: Story, frames: int, firsts: int) -> None:
    task = story.submit(frames=f"1-{frames}")
    chosen = [count for count in range(4) if should_verify(replace(task, verifications=count), chance=0.9)]
    assert chosen == list(range(firsts))
    assert should_verify(replace(task, verifications=9), chance=0.001)


@pytest.mark.parametrize(("frames", "share"), [(1, 0.1905), (8, 0.1905), (50, 0.033), (1000, 0.02)])
def test_keeping_must_save_more_than_verifying_costs(story: Story, frames: int, share: float) -> None:
    assert saving_min(story.submit(frames=f"1-{frames}")) == pytest.approx(share)


def test_a_verification_is_given_ahead_like_any_short_frame(story: Story) -> None:
    task = story.admitted(frames="1-10")
    [lease] = story.place("w1")
    story.commit(lease, warm=True)
    [verify] = verifications(story, task.id)
    paces = Paces()
    paces.note(task.id, task.asset_id, 1, 0.2, 0.1)
    slots = story.slots(["w2"], busy=["w2"])
    look = placement.place_units(story.farm, story.epoch, slots, {"w2": "node"}, paces)
    [given] = [placed for placed in look.placed if placed.lease.unit_id == verify.id]
    assert given.estimate_s == pytest.approx(0.3)


def test_a_paused_task_keeps_its_verification_back(story: Story) -> None:
    task = story.admitted(frames="1-10")
    [lease] = story.place("w1")
    tasks.pause_task(story.farm, LOCAL_OWNER, task.id)
    story.commit(lease, warm=True)
    assert len(verifications(story, task.id)) == 1
    assert story.place("w1", "w2") == []


@pytest.mark.parametrize(
    ("setting", "cold", "told"),
    [
        (PersistentData.AUTO, False, PersistentData.AUTO),
        (PersistentData.AUTO, True, PersistentData.OFF),
        (PersistentData.ON, False, PersistentData.ON),
        (PersistentData.OFF, False, PersistentData.OFF),
        (PersistentData.FILE, False, PersistentData.FILE),
        (PersistentData.FILE, True, PersistentData.OFF),
    ],
)
def test_what_the_script_is_told(story: Story, setting: PersistentData, cold: bool, told: PersistentData) -> None:
    asset = story.asset()
    task = replace(story.admitted(asset, frames="1", persistent_data=setting), cold=cold)
    [unit] = story.units(task.id)
    assert unit_spec(task, unit, asset).persistent_data is told


def test_a_verification_that_cannot_be_done_fails_no_task(story: Story) -> None:
    # T: running > cancelled (script errors are not tried again), and the task completes
    task = story.admitted(frames="1-10")
    lease = warm_until_verified(story, task.id)
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    commit_others(story, task.id, lease, warm=False)
    ended = story.task(task.id)
    assert (ended.state, ended.units_failed, ended.failure) == (TaskState.COMPLETED, 0, None)
    assert [unit.state for unit in verifications(story, task.id)] == [UnitState.CANCELLED]
