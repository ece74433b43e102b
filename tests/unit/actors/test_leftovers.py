"""Nothing that a dead worker has left keeps its slot from starting."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from actors.leftovers import remember_session, sweep_leftovers
from renderfarm.domain.failures import FailureKind
from renderfarm.errors import StorageFull
from renderfarm.ports import Farm
from renderfarm.storage import FolderObjects
from renderfarm.wiring import close_farm
from tests.unit.services.story import Clock, Story, make_farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = make_farm(tmp_path / "data", Clock(), itertools.count(1))
    yield farm
    close_farm(farm)


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    folder = tmp_path / "vm-0"
    folder.mkdir()
    return folder


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


class FullObjects(FolderObjects):
    def put(self, source: Path, *, spare: bool = False) -> str:
        raise StorageFull(f"no room left on the disk for {source.name}")


def test_the_former_blender_is_killed(farm: Farm, slot: Path, child: subprocess.Popen[bytes]) -> None:
    remember_session(slot, child.pid)
    assert [path.name for path in slot.iterdir()] == ["session.json"]
    sweep_leftovers(farm, slot)
    assert not psutil.pid_exists(child.pid)
    assert list(slot.iterdir()) == []


def test_another_process_of_that_id_is_left_alone(farm: Farm, slot: Path, child: subprocess.Popen[bytes]) -> None:
    (slot / "session.json").write_text(json.dumps({"pid": child.pid, "started_at": 1.0}))
    sweep_leftovers(farm, slot)
    assert child.poll() is None


def test_a_session_that_has_ended_already_is_not_remembered(slot: Path, child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    remember_session(slot, child.pid)
    assert list(slot.iterdir()) == []


@pytest.mark.parametrize("record", ["", '{"pid": 1', "[]", '{"pid": "x", "started_at": 1}'])
def test_a_record_that_is_no_record(farm: Farm, slot: Path, record: str) -> None:
    (slot / "session.json").write_text(record)
    sweep_leftovers(farm, slot)
    assert list(slot.iterdir()) == []


def test_a_blender_that_cannot_be_killed(
    farm: Farm, slot: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: psutil.Process) -> None:
        raise psutil.AccessDenied(self.pid)

    remember_session(slot, child.pid)
    monkeypatch.setattr(psutil.Process, "kill", refuse)
    sweep_leftovers(farm, slot)
    assert list(slot.iterdir()) == []


def test_the_log_of_a_lost_attempt_is_kept(farm: Farm, slot: Path) -> None:
    story = Story(farm, Clock())
    story.admitted(frames="1")
    [lease] = story.place()
    story.fail(lease, FailureKind.LOST)
    for name in (f"{lease.unit_id}-1", "no-number"):
        (slot / name).mkdir()
        (slot / name / "blender.log").write_text("what it said")
    sweep_leftovers(farm, slot)
    with farm.database.read() as tx:
        attempt = tx.attempts.get(lease.unit_id, 1)
    assert attempt is not None
    assert attempt.log_digest is not None
    assert farm.objects.has(attempt.log_digest)
    assert list(slot.iterdir()) == []


def test_a_store_that_is_full(farm: Farm, slot: Path, tmp_path: Path) -> None:
    (slot / "unit-1").mkdir()
    (slot / "unit-1" / "blender.log").write_text("what it said")
    sweep_leftovers(replace(farm, objects=FullObjects(tmp_path / "full")), slot)
    assert list(slot.iterdir()) == []


def test_a_slot_that_starts_for_the_first_time(farm: Farm, tmp_path: Path) -> None:
    sweep_leftovers(farm, tmp_path / "new" / "vm-0")
    assert (tmp_path / "new" / "vm-0").is_dir()
