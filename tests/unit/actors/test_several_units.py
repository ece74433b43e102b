"""A worker that has several units: their order, what becomes of the others, and what Blender has already."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from actors.blenders import Blender
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Task, UnitKind
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.errors import Conflict, FarmUnavailable, StorageFull
from tests.unit.actors.fake_blender import Bench, FakeSession, execute, executing, living, until


def test_units_given_together_run_one_after_the_other_in_their_order(bench: Bench) -> None:
    async def scenario() -> None:
        task, first = bench.task("1-3")
        leases = [first, *bench.story.place(), *bench.story.place()]
        outcomes = await bench.worker.execute(leases)
        assert [outcome.lease for outcome in outcomes] == leases
        assert bench.story.task(task.id).state is TaskState.COMPLETED
        assert [session.frames for session in FakeSession.all] == [[1, 2, 3]]

    asyncio.run(scenario())


def test_more_units_may_be_given_while_one_runs_but_none_twice(bench: Bench) -> None:
    async def scenario() -> None:
        _, first = bench.task("1-2")
        [second] = bench.story.place()
        FakeSession.gates.frame.clear()
        executions = [executing(bench.worker, first), executing(bench.worker, second)]
        await until(living)
        with pytest.raises(Conflict):
            await execute(bench.worker, second)
        assert set((await bench.worker.ping()).leases) == {first, second}
        FakeSession.gates.frame.set()
        assert [(await execution).failure for execution in executions] == [None, None]

    asyncio.run(scenario())


def test_a_crash_fails_its_own_unit_only(bench: Bench) -> None:
    async def scenario() -> None:
        _, first = bench.task("1-2")
        [second] = bench.story.place()
        FakeSession.crashes_at = {1}
        outcomes = await bench.worker.execute([first, second])
        assert [outcome.failure for outcome in outcomes] == [FailureKind.CRASH, None]

    asyncio.run(scenario())


@pytest.mark.parametrize(("kind", "sessions"), [(FailureKind.DEVICE, 2), (FailureKind.SCRIPT_ERROR, 1)])
def test_a_gpu_that_failed_once_is_tried_again_by_another_blender(
    bench: Bench, kind: FailureKind, sessions: int
) -> None:
    async def scenario() -> None:
        task, first = bench.task("1-2")
        [second] = bench.story.place()
        FakeSession.fails_at = {1: Failure(kind=kind, message="Illegal address in CUDA queue")}
        outcomes = await bench.worker.execute([first, second])
        assert [outcome.failure for outcome in outcomes] == [kind, None]
        assert bench.story.task(task.id).frames_done == 1

    asyncio.run(scenario())
    assert len(FakeSession.all) == sessions


def test_an_attempt_records_what_it_rendered_on(bench: Bench) -> None:
    task, lease = bench.task("1")
    outcome = asyncio.run(execute(bench.worker, lease))
    with bench.farm.database.read() as tx:
        [attempt] = tx.attempts.of_unit(bench.unit(task).id)
    assert attempt.devices == ("FAKE: 1",)
    assert outcome.peak_memory_bytes == (attempt.peak_memory_bytes or 0)


def test_what_waits_behind_a_long_unit_is_handed_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # T: running (given ahead) > ready, no failure counted --> runs elsewhere
    monkeypatch.setattr("actors.worker._HAND_BACK_AFTER_S", 0.05)

    async def scenario() -> None:
        task, first = bench.task("1-2")
        [second] = bench.story.place()
        FakeSession.gates.frame.clear()
        running = executing(bench.worker, first)
        await until(living)
        waiting = executing(bench.worker, second)
        assert (await waiting).failure is None
        handed_back = bench.story.units(task.id)[1]
        assert (handed_back.state, handed_back.failures, handed_back.attempt) == (UnitState.READY, (), 1)
        [again] = bench.story.place("w2")
        assert (again.unit_id, again.attempt) == (second.unit_id, 2)
        FakeSession.gates.frame.set()
        assert (await running).failure is None

    asyncio.run(scenario())


def test_a_cancel_of_what_waits_leaves_alone_what_runs(bench: Bench) -> None:
    async def scenario() -> None:
        task, first = bench.task("1-2")
        [second] = bench.story.place()
        FakeSession.gates.frame.clear()
        running, waiting = executing(bench.worker, first), executing(bench.worker, second)
        await until(living)
        await bench.worker.cancel([second])
        assert (await waiting).failure is None
        FakeSession.gates.frame.set()
        assert (await running).failure is None
        assert bench.unit(task).state is UnitState.SUCCEEDED

    asyncio.run(scenario())


def test_blender_has_the_next_unit_before_it_is_done_with_the_last(bench: Bench) -> None:
    async def scenario() -> None:
        task, first = bench.task("1-4")
        leases = [first, *(lease for _ in range(3) for lease in bench.story.place())]
        FakeSession.gates.frame.clear()
        execution = asyncio.create_task(bench.worker.execute(leases))
        await until(lambda: living() and living()[0].ahead)
        FakeSession.gates.frame.set()
        assert [outcome.failure for outcome in await execution] == [None] * 4
        assert bench.story.task(task.id).state is TaskState.COMPLETED

    asyncio.run(scenario())
    [session] = FakeSession.all
    assert session.told == ["asked: (1,)", "sent ahead: (3,)", "sent ahead: (4,)", "sent ahead: (2,)"]


def test_what_was_sent_ahead_is_withdrawn_when_it_is_cancelled(bench: Bench) -> None:
    async def scenario() -> None:
        _, first = bench.task("1-3")
        [second], [third] = bench.story.place(), bench.story.place()
        FakeSession.gates.frame.clear()
        running, waiting = executing(bench.worker, first), executing(bench.worker, second)
        await until(lambda: living() and living()[0].ahead)
        last = executing(bench.worker, third)
        await bench.worker.cancel([second])
        assert (await waiting).failure is None
        await until(lambda: living()[0].told[-1].startswith("withdrawn"))
        FakeSession.gates.frame.set()
        assert [(await execution).failure for execution in (running, last)] == [None, None]

    asyncio.run(scenario())
    [session] = FakeSession.all
    assert session.told[:2] == ["asked: (1,)", "withdrawn: (2,)"]
    assert session.told[2] in ("asked: (3,)", "sent ahead: (3,)")


def test_what_was_sent_ahead_of_a_crash_is_asked_of_the_next_blender(bench: Bench) -> None:
    async def scenario() -> None:
        _, first = bench.task("1-2")
        [second] = bench.story.place()
        FakeSession.crashes_at = {1}
        FakeSession.gates.frame.clear()
        executions = [executing(bench.worker, first), executing(bench.worker, second)]
        await until(lambda: living() and living()[0].ahead)
        FakeSession.gates.frame.set()
        assert [(await execution).failure for execution in executions] == [FailureKind.CRASH, None]

    asyncio.run(scenario())
    assert [session.told for session in FakeSession.all] == [["asked: (1,)"], ["asked: (2,)"]]


def test_a_unit_for_another_blender_is_not_sent_ahead(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Blender(version="5.2.0", argv_prefix=("blender5",))
    monkeypatch.setattr(bench.worker, "_blenders", (*bench.worker._blenders, other))

    async def scenario() -> None:
        task, first = bench.task("1-2")
        [second] = bench.story.place()
        unit = bench.story.units(task.id)[1]
        with bench.farm.database.write() as tx:
            tx.units.update(unit, replace(unit, blender=other.version))
        FakeSession.gates.frame.clear()
        executions = [executing(bench.worker, first), executing(bench.worker, second)]
        await until(lambda: living() and bench.worker._line)
        assert living()[0].ahead is None
        FakeSession.gates.frame.set()
        assert [(await execution).failure for execution in executions] == [None, None]

    asyncio.run(scenario())
    assert [session.told for session in FakeSession.all] == [["asked: (1,)"], ["asked: (2,)"]]


def test_the_next_unit_renders_while_the_last_ones_files_are_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, enough = bench.farm.objects.put, threading.Event()

    def slow_put(source: Path, **how: bool) -> str:
        if source.name == "0001.png":
            assert enough.wait(5), "the second frame never came"
        if source.name == "0002.png":
            enough.set()
        return put(source, **how)

    async def scenario() -> None:
        _, first = bench.task("1-2")
        [second] = bench.story.place()
        monkeypatch.setattr(bench.farm.objects, "put", slow_put)
        outcomes = await bench.worker.execute([first, second])
        assert [outcome.failure for outcome in outcomes] == [None, None]

    asyncio.run(scenario())


@pytest.fixture
def short_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.company._SHORT_S", 2.0)


def units(bench: Bench, count: int) -> tuple[Task, list[Lease]]:
    task, first = bench.task(f"1-{count}")
    return task, [first, *(lease for _ in range(count - 1) for lease in bench.story.place())]


@pytest.mark.usefixtures("short_frames")
def test_short_frames_are_stored_together_once_all_are_rendered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    put, puts = bench.farm.objects.put, list[tuple[str, int, int]]()

    def told_put(source: Path, **how: bool) -> str:
        puts.append((source.name, threading.get_ident(), len(FakeSession.all[0].frames)))
        return put(source, **how)

    async def scenario() -> None:
        task, leases = units(bench, 3)
        monkeypatch.setattr(bench.farm.objects, "put", told_put)
        outcomes = await bench.worker.execute(leases)
        assert [outcome.failure for outcome in outcomes] == [None] * 3
        assert bench.story.task(task.id).state is TaskState.COMPLETED

    asyncio.run(scenario())
    assert {name for name, _, _ in puts} >= {"0001.png", "0002.png", "0003.png"}
    assert len({thread for _, thread, _ in puts}) == 1
    assert {rendered for _, _, rendered in puts} == {3}


@pytest.mark.usefixtures("short_frames")
def test_short_frames_do_not_wait_for_a_verification_which_never_joins_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.company.WAIT_MAX_S", 60.0)

    async def scenario() -> None:
        task, first = bench.task("1-8")
        await execute(bench.worker, first)
        await execute(bench.worker, bench.story.place()[0])  # which is warm
        [verification], [frame] = bench.story.place(), bench.story.place()
        kinds = {unit.id: unit.kind for unit in bench.story.units(task.id)}
        assert [kinds[verification.unit_id], kinds[frame.unit_id]] == [UnitKind.VERIFY, UnitKind.RENDER]
        async with asyncio.timeout(10):
            outcomes = await bench.worker.execute([frame, verification])
        assert [outcome.failure for outcome in outcomes] == [None, None]

    asyncio.run(scenario())


def test_an_outcome_tells_how_long_ago_its_turn_ended(bench: Bench) -> None:
    async def scenario() -> None:
        _, first = bench.task("1-2")
        [second] = bench.story.place()
        earlier, later = await bench.worker.execute([first, second])
        assert earlier.since_turn_s is not None
        assert later.since_turn_s is not None
        assert earlier.since_turn_s > later.since_turn_s >= 0.0
        assert (earlier.open_seconds, later.open_seconds) == (0.5, None)
        [without] = await bench.worker.execute([replace(first, attempt=9)])  # a lease that is lost
        assert without.since_turn_s is None

    asyncio.run(scenario())


@pytest.mark.usefixtures("short_frames")
def test_of_short_frames_that_are_stored_together_each_has_its_own_luck(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, tries = bench.farm.objects.put, list[str]()

    def unlucky_put(source: Path, **how: bool) -> str:
        tries.append(source.name)
        if source.name == "0001.png" and tries.count("0001.png") == 1:
            raise FarmUnavailable("the object store is away")  # for a moment
        if source.name == "0002.png":
            raise StorageFull("no room left")
        return put(source, **how)

    async def scenario() -> None:
        task, leases = units(bench, 3)
        monkeypatch.setattr(bench.farm.objects, "put", unlucky_put)
        outcomes = await bench.worker.execute(leases)
        assert [outcome.failure for outcome in outcomes] == [None, FailureKind.STORAGE, None]
        assert bench.story.task(task.id).frames_done == 2

    asyncio.run(scenario())
    assert tries.count("0001.png") == 2


@pytest.mark.usefixtures("short_frames")
def test_many_short_frames_are_stored_by_several_threads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.worker._STEPS_PER_THREAD", 2)
    put, both, threads = bench.farm.objects.put, threading.Barrier(2, timeout=10), set[int]()

    def slow_put(source: Path, **how: bool) -> str:
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            both.wait()  # neither goes on without the other
        return put(source, **how)

    async def scenario() -> None:
        _, leases = units(bench, 4)
        monkeypatch.setattr(bench.farm.objects, "put", slow_put)
        outcomes = await bench.worker.execute(leases)
        assert [outcome.failure for outcome in outcomes] == [None] * 4

    asyncio.run(scenario())
