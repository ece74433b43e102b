"""A worker's attempts: that no frame is lost, and that a stop comes through in every phase."""

from __future__ import annotations

import asyncio
import errno
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from actors.blender_session import BlenderSession, SessionFailed
from actors.blenders import Blender
from actors.leftovers import remember_session
from actors.worker import Worker
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Asset
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.errors import Conflict, FarmUnavailable, NotFound, StorageFull
from renderfarm.services import placement
from tests.unit.actors.fake_blender import Bench, FakeSession, execute, executing, living, until
from tests.unit.pictures import png

DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_frame_is_rendered_committed_and_published(bench: Bench) -> None:
    task, lease = bench.task()
    outcome = asyncio.run(execute(bench.worker, lease))
    assert outcome.failure is None
    assert outcome.open_scene == task.asset_id
    assert bench.story.task(task.id).state is TaskState.COMPLETED
    assert [output.published for output in bench.story.outputs(task.id)] == [True]
    assert not list(bench.worker.folder.glob("*-1"))


# --- stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "stop"])
@pytest.mark.parametrize("phase", ["start", "frame"])
def test_a_stop_kills_blender_at_its_start_and_at_work(bench: Bench, phase: str, how: str) -> None:
    async def scenario() -> None:
        task, lease = bench.task()
        getattr(FakeSession.gates, phase).clear()
        execution = executing(bench.worker, lease)
        await until(lambda: FakeSession.all and (phase == "start" or FakeSession.all[0].open_scene))
        await (bench.worker.cancel([lease]) if how == "cancel" else bench.worker.stop())
        async with asyncio.timeout(2):
            assert (await execution).failure is None
        assert bench.unit(task).state is UnitState.RUNNING, "the database is the scheduler's to change"

    asyncio.run(scenario())
    assert not living()


def test_a_stop_while_the_scene_is_fetched_starts_no_blender(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching, enough = threading.Event(), threading.Event()

    def fetch(_asset: Asset, _now: float) -> Path:
        fetching.set()
        enough.wait(5)
        raise NotFound("too late to matter")

    monkeypatch.setattr(bench.worker.cache, "fetch", fetch)

    async def scenario() -> None:
        _, lease = bench.task()
        execution = executing(bench.worker, lease)
        await until(fetching.is_set)
        await bench.worker.cancel([lease])
        async with asyncio.timeout(2):
            assert (await execution).failure is None
        enough.set()

    asyncio.run(scenario())
    assert not FakeSession.all


def test_a_cancel_while_the_store_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    put, refused = bench.farm.objects.put, threading.Event()

    def refuse(source: Path, **how: bool) -> str:
        if source.suffix != ".png":
            return put(source, **how)
        refused.set()
        raise FarmUnavailable("the object store does not answer")

    async def scenario() -> None:
        _, lease = bench.task()
        monkeypatch.setattr(bench.farm.objects, "put", refuse)
        execution = executing(bench.worker, lease)
        await until(refused.is_set)
        await bench.worker.cancel([lease])
        async with asyncio.timeout(1):
            assert (await execution).failure is None

    asyncio.run(scenario())
    assert len(living()) == 1, "the frame was rendered, so the session is warm and free for others"


def test_a_cancel_after_the_last_commit_leaves_the_session_warm(bench: Bench) -> None:
    async def scenario() -> None:
        task, lease = bench.task()
        FakeSession.gates.after_last_frame.clear()
        execution = executing(bench.worker, lease)
        await until(lambda: bench.unit(task).state is UnitState.SUCCEEDED)
        await bench.worker.cancel([lease])  # the scheduler finds that the database does not know the lease any more
        await asyncio.sleep(0.1)  # heartbeats find the same
        FakeSession.gates.after_last_frame.set()
        assert (await execution).open_scene == task.asset_id

    asyncio.run(scenario())
    assert len(living()) == 1


def test_a_lease_that_was_taken_away_ends_the_attempt(bench: Bench) -> None:
    # T: running > ready (lease expired), noticed by the worker's own heartbeat
    async def scenario() -> None:
        task, lease = bench.task()
        FakeSession.gates.frame.clear()
        execution = executing(bench.worker, lease)
        await until(living)
        placement.lose_worker(bench.farm, bench.story.epoch, "w1", "it seemed dead")
        async with asyncio.timeout(2):
            assert (await execution).failure is None
        assert bench.unit(task).state is UnitState.READY

    asyncio.run(scenario())
    assert not living()


def test_a_worker_that_stops_takes_no_more_work(bench: Bench) -> None:
    async def scenario() -> None:
        _, lease = bench.task()
        await bench.worker.stop()
        with pytest.raises(Conflict):
            await execute(bench.worker, lease)

    asyncio.run(scenario())
    assert not FakeSession.all


# --- trouble around the worker -----------------------------------------------------------------------------------


def test_a_database_that_is_away_for_a_while_loses_no_frame(bench: Bench) -> None:
    async def scenario() -> None:
        task, lease = bench.task("1-2")
        FakeSession.gates.frame.clear()
        execution = executing(bench.worker, lease)
        await until(living)
        bench.trouble(10)
        FakeSession.gates.frame.set()
        assert (await execution).failure is None
        assert bench.unit(task).attempt == 1
        assert bench.unit(task).frames_done == len(bench.unit(task).frames)

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [StorageFull("the database is full"), FarmUnavailable("locked"), ValueError("a bug")])
def test_nothing_but_a_lost_lease_ends_the_heartbeat(bench: Bench, error: Exception) -> None:
    async def scenario() -> None:
        task, lease = bench.task()
        FakeSession.gates.frame.clear()
        execution = executing(bench.worker, lease)
        await until(living)
        bench.trouble(3, error)
        await until(lambda: not bench.database.troubles)
        before = bench.unit(task).lease_expires_at or 0.0
        bench.story.clock.pass_(1.0)
        await until(lambda: (bench.unit(task).lease_expires_at or 0.0) > before)
        FakeSession.gates.frame.set()
        assert (await execution).failure is None

    asyncio.run(scenario())


def test_a_failure_that_cannot_be_written_down_ends_the_attempt_all_the_same(bench: Bench) -> None:
    async def scenario() -> None:
        task, lease = bench.task()
        FakeSession.refusal = OSError(errno.ENOENT, "no such program")
        bench.trouble(1000)
        assert (await execute(bench.worker, lease)).failure is FailureKind.CRASH
        assert bench.unit(task).state is UnitState.RUNNING, "its lease will expire"

    asyncio.run(scenario())


def test_a_store_that_hiccups_loses_no_frame(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    put, hiccups = bench.farm.objects.put, iter([1, 2])

    def hiccuping_put(source: Path, **how: bool) -> str:
        if source.suffix == ".png" and next(hiccups, None):
            raise FarmUnavailable("the object store does not answer")
        return put(source, **how)

    task, lease = bench.task()
    monkeypatch.setattr(bench.farm.objects, "put", hiccuping_put)
    assert asyncio.run(execute(bench.worker, lease)).failure is None
    assert bench.unit(task).attempt == 1


@pytest.mark.parametrize("error", [NotFound("the blob is gone"), StorageFull("no room"), ValueError("a bug")])
def test_a_frame_that_cannot_be_published_is_committed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_digest: str, _name: str) -> None:
        raise error

    monkeypatch.setattr(bench.farm.objects, "publish", refuse)
    task, lease = bench.task()
    assert asyncio.run(execute(bench.worker, lease)).failure is None
    assert [output.published for output in bench.story.outputs(task.id)] == [False]
    assert not list(bench.worker.folder.glob("*-1"))


@pytest.mark.parametrize("place", ["mkdir", "fetch", "start", "remember"])
def test_a_full_disk_is_told_as_such(bench: Bench, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DISK_FULL

    task, lease = bench.task()
    with monkeypatch.context() as patch:
        if place == "mkdir":
            patch.setattr(Path, "mkdir", refuse)
        if place == "fetch":
            patch.setattr(bench.worker.cache, "fetch", refuse)
        if place == "start":
            patch.setattr(FakeSession, "refusal", DISK_FULL)
        if place == "remember":
            patch.setattr("actors.worker.remember_session", refuse)
        assert asyncio.run(execute(bench.worker, lease)).failure is FailureKind.STORAGE
    failure = bench.unit(task).failure
    assert failure is not None
    assert "No space left on device" in failure.message
    assert not living()


def test_a_blender_that_this_worker_does_not_have(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.worker.find_blenders", lambda _: (Blender(version="3.4.1", argv_prefix=("b",)),))
    worker = Worker(bench.farm, "w1", "127.0.0.1", threads=1)
    task, lease = bench.task()
    assert asyncio.run(execute(worker, lease)).failure is FailureKind.CRASH
    failure = bench.unit(task).failure
    assert failure is not None
    assert failure.message == "w1 has no Blender 4.5.15, only 3.4.1"


# --- the real session's start --------------------------------------------------------------------------------------


def sleeper(tmp_path: Path) -> Blender:
    """A Blender that starts and never answers."""
    program = tmp_path / "blender"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    return Blender(version="4.5.15", argv_prefix=(str(program),))


def test_a_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        starting = asyncio.create_task(
            BlenderSession.start(
                sleeper(tmp_path), folder=tmp_path / "s", log_path=tmp_path / "log", start_timeout_s=60.0
            )
        )
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        starting.cancel()
        async with asyncio.timeout(2):
            with pytest.raises(asyncio.CancelledError):
                await starting

    asyncio.run(scenario())
    remember_session(tmp_path, int((tmp_path / "pid").read_text()))
    assert not (tmp_path / "session.json").exists(), "there is no such process"


def test_a_start_on_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DISK_FULL

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SessionFailed) as told:
        asyncio.run(
            BlenderSession.start(
                sleeper(tmp_path), folder=tmp_path / "s", log_path=tmp_path / "log", start_timeout_s=60.0
            )
        )
    assert told.value.failure.kind is FailureKind.STORAGE


def test_a_unit_whose_frames_are_all_there_ends_at_once(bench: Bench) -> None:
    # As a repair may leave it. T: running > succeeded, and nothing is rendered
    task, lease = bench.task()
    bench.story.commit(lease)
    unit, done = bench.unit(task), bench.story.task(task.id)
    with bench.farm.database.write() as tx:
        tx.units.update(unit, replace(unit, state=UnitState.RUNNING))
        tx.tasks.update(done, replace(done, state=TaskState.RUNNING, units_open=1))
    assert asyncio.run(execute(bench.worker, lease)).failure is None
    assert (bench.unit(task).state, bench.story.task(task.id).state) == (UnitState.SUCCEEDED, TaskState.COMPLETED)
    assert not FakeSession.all


# --- warm and cold -----------------------------------------------------------------------------------------------


async def run_all(bench: Bench, first: Lease) -> None:
    """Run everything that there is to place, one unit after the other."""
    leases = [first]
    while leases:
        for lease in leases:
            assert (await execute(bench.worker, lease)).failure is None
        leases = bench.story.place()


def test_a_warm_frame_is_rendered_cold_and_found_to_be_the_same(bench: Bench) -> None:
    task, lease = bench.task(frames="1-8")
    asyncio.run(run_all(bench, lease))
    ended = bench.story.task(task.id)
    assert (ended.state, ended.frames_done, ended.units_total, ended.cold) == (TaskState.COMPLETED, 8, 9, False)
    assert [output.warm for output in bench.story.outputs(task.id)] == [False] + [True] * 7
    [session] = FakeSession.all
    assert len(session.frames) == 9


def test_a_warm_frame_that_is_wrong_is_rendered_again_with_all_that_were_warm(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "fresh_picture", png(20))
    task, lease = bench.task(frames="1-8")
    asyncio.run(run_all(bench, lease))
    ended = bench.story.task(task.id)
    assert (ended.state, ended.frames_done, ended.cold) == (TaskState.COMPLETED, 8, True)
    [entry] = [entry for entry in bench.story.log(task.id) if entry.event == "task.cold"]
    assert "0005.png" in entry.reason  # the middle frame, which is rendered after the first
    [session] = FakeSession.all
    assert session.frames.count(5) == 3  # warm, to verify, and once more


def test_a_session_that_holds_too_much_memory_is_ended(bench: Bench) -> None:
    async def story() -> None:
        _, lease = bench.task()
        await execute(bench.worker, lease)
        FakeSession.all[0].wants_restart = True
        _, lease = bench.task()
        await execute(bench.worker, lease)

    asyncio.run(story())
    assert [session.alive for session in FakeSession.all] == [False, True]
