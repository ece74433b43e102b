"""Nothing is lost and nothing is done twice, whatever dies: by chance, but the same for the same seed."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import FAULTS, Driver, Studio
from tests.integration.farm_process import FarmProcess
from tests.integration.scenes import make_scene

TASKS, FRAMES = 10, 50
FAULTS_AT_LEAST = 50
#: ``RENDERFARM_TEST_SEED=… pytest tests/faults`` tries another sequence.
SEED = int(os.environ.get("RENDERFARM_TEST_SEED", "20261121"))


@pytest.mark.timeout(1500)
def test_five_hundred_units_and_fifty_faults(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "faults.blend", f"scene.frame_end = {FRAMES}; scene.cycles.samples = 1")
    with Studio(tmp_path / "farm") as studio:
        farm = studio.farm
        driver = Driver(studio=studio, seed=SEED, tasks=TASKS, frames=FRAMES, faults=FAULTS_AT_LEAST)
        driver.run(farm.upload(scene))

        assert driver.done.total() == FAULTS_AT_LEAST
        assert set(driver.done) == set(FAULTS)
        farm.until(lambda: farm.client.check_ready()["status"] == "ready", "a farm that is whole again", 120)
        names = [f"shot_{frame:04d}.png" for frame in range(1, FRAMES + 1)]
        for task_id in driver.accepted:
            assert farm.client.get_status(task_id)["status"] == "completed"
            farm.until(lambda task_id=task_id: _all_published(farm, task_id), "the last frames' appearance", 90)  # type: ignore[misc]
            farm.assert_every_frame_once(task_id, names)
            _assert_every_retry_is_explained(farm, task_id)
        # What attempts that were fenced off have left in the store is swept once it is old; nothing else is amiss.
        assert farm.client.check_farm()["findings"] == []
        print(f"seed {SEED}: {dict(driver.done)}")


def _all_published(farm: FarmProcess, task_id: str) -> bool:
    folder = farm.data / "objects" / "outputs" / task_id
    return len(list(folder.glob("*.png"))) == FRAMES


def _assert_every_retry_is_explained(farm: FarmProcess, task_id: str) -> None:
    """Each unit was placed as often as it has attempts, succeeded once, and each way back to ready has its reason."""
    steps: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in farm.log(task_id):
        if entry["event"] == "unit.state":
            steps[entry["unit_id"]].append(entry)
    # Some warm frames are verified.
    units = farm.client.list_units(task_id, limit=2 * FRAMES)["items"]
    assert len(units) == len(steps)
    assert sum(unit["kind"] == "render" for unit in units) == FRAMES
    for unit in units:
        ways = Counter((entry["old"], entry["new"]) for entry in steps[unit["id"]])
        assert ways["running", "succeeded"] == 1
        assert ways["ready", "running"] == unit["attempt"]
        assert ways["running", "ready"] == unit["attempt"] - 1
        for entry in steps[unit["id"]]:
            if (entry["old"], entry["new"]) == ("running", "ready"):
                assert ": " in entry["reason"] or "longer than was expected" in entry["reason"], entry
