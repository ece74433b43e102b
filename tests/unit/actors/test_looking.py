"""Pictures are looked at before they are committed: what is truncated is none, what looks wrong is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from actors.messages import Outcome
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.flaws import FlawKind, Glance
from renderfarm.domain.models import Task
from renderfarm.domain.render_settings import FlawedFrames
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.media import glances
from tests.unit.actors.fake_blender import Bench, FakeSession, execute
from tests.unit.pictures import png, write_exr

BLACK = png(0)


def run(bench: Bench, flawed: FlawedFrames = FlawedFrames.FLAG) -> tuple[Task, Outcome]:
    task, lease = bench.task(flawed=flawed)
    return task, asyncio.run(execute(bench.worker, lease))


def try_again(bench: Bench) -> Outcome:
    bench.story.clock.pass_(100)
    [lease] = bench.story.place()
    return asyncio.run(execute(bench.worker, lease))


def told(bench: Bench, task: Task) -> list[tuple[str | None, str]]:
    return [(entry.new, entry.reason) for entry in bench.story.log(task.id) if entry.event == "frame.flawed"]


def test_a_good_picture_is_looked_at_and_nothing_is_said(bench: Bench) -> None:
    task, outcome = run(bench)
    [output] = bench.story.outputs(task.id)
    assert (outcome.failure, output.flaws, told(bench, task)) == (None, (), [])
    with bench.farm.database.read() as tx:
        assert tx.outputs.impressions(task.id) == {output.id: bytes([128]) * (32 * 18)}


def test_a_black_picture_is_committed_and_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "picture", BLACK)
    task, outcome = run(bench)
    [output] = bench.story.outputs(task.id)
    assert outcome.failure is None
    assert [flaw.kind for flaw in output.flaws or ()] == [FlawKind.BLACK]
    assert told(bench, task) == [("0001.png", "frame 1: the picture is all black")]
    assert bench.story.task(task.id).state is TaskState.COMPLETED


def test_a_truncated_picture_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # T: running > ready, as the disk may be full
    monkeypatch.setattr(FakeSession, "picture", png()[:-20])
    task, outcome = run(bench)
    assert outcome.failure is FailureKind.STORAGE
    assert (bench.unit(task).state, bench.story.outputs(task.id)) == (UnitState.READY, [])
    assert "0001.png is truncated" in (bench.unit(task).failure or pytest.fail("no failure")).message
    monkeypatch.setattr(FakeSession, "picture", png())
    assert try_again(bench).failure is None


def test_a_flawed_frame_may_be_rendered_once_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # T: running > ready > running > succeeded
    monkeypatch.setattr(FakeSession, "picture", BLACK)
    task, outcome = run(bench, flawed=FlawedFrames.RETRY)
    unit = bench.unit(task)
    assert (outcome.failure, unit.state, unit.failed_on) == (FailureKind.FLAWED, UnitState.READY, ("w1",))
    assert unit.failure is not None
    assert unit.failure.message == "0001.png: the picture is all black"
    assert bench.story.outputs(task.id) == []
    monkeypatch.setattr(FakeSession, "picture", png())
    assert try_again(bench).failure is None
    assert [output.flaws for output in bench.story.outputs(task.id)] == [()]


def test_what_is_flawed_twice_is_committed_and_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "picture", BLACK)
    task, _ = run(bench, flawed=FlawedFrames.RETRY)
    assert try_again(bench).failure is None
    assert bench.story.task(task.id).state is TaskState.COMPLETED
    assert told(bench, task) == [("0001.png", "frame 1: the picture is all black")]


def test_a_frame_unlike_its_neighbours_is_rendered_once_more(bench: Bench) -> None:
    FakeSession.odd_pictures[4] = png(20)
    task, first = bench.task(frames="1-7", flawed=FlawedFrames.RETRY)

    async def run_all() -> None:
        leases = [first]
        while leases:
            for lease in leases:
                assert (await execute(bench.worker, lease)).failure is None
            leases = bench.story.place()

    asyncio.run(run_all())
    assert bench.story.task(task.id).state is TaskState.COMPLETED
    assert FakeSession.all[0].frames.count(4) == 2
    assert len({output.digest for output in bench.story.outputs(task.id)}) == 1


def test_a_mistake_in_judging_costs_no_frame(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_path: Path, _display: object) -> Glance:
        raise MemoryError("no room to look at it")

    monkeypatch.setattr(glances, "glance_at", fail)
    task, outcome = run(bench)
    assert outcome.failure is None
    assert [output.flaws for output in bench.story.outputs(task.id)] == [None]
    assert "0001.png is not judged: MemoryError: no room to look at it" in caplog.text


@pytest.mark.parametrize("name", ["0001.dpx", "0001.hdr", "0001"])
def test_what_nobody_can_read_is_not_judged(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(FakeSession, "file_name", name)
    monkeypatch.setattr(FakeSession, "picture", b"whatever this is")
    task, outcome = run(bench)
    [output] = bench.story.outputs(task.id)
    assert (outcome.failure, output.name, output.flaws) == (None, name, None)


def test_what_file_output_nodes_wrote_may_be_black(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "file_name", "Mask/0001.png")
    monkeypatch.setattr(FakeSession, "picture", BLACK)
    task, _ = run(bench, flawed=FlawedFrames.RETRY)
    assert [output.flaws for output in bench.story.outputs(task.id)] == [None]


def test_light_that_is_no_number_is_found(tmp_path: Path) -> None:
    pixels = np.full((20, 30, 4), 0.5, np.float32)
    pixels[3, 4, 1] = np.nan
    glance = glances.glance_at(write_exr(tmp_path / "0001.exr", pixels))
    assert [flaw.message for flaw in glance.flaws] == [
        "1 pixel is infinite or not a number, the first at column 4, row 3"
    ]
