"""One still on several workers, and a movie of frames, through a whole farm."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.integration.farm_process import FarmProcess
from tests.integration.pictures import largest_difference
from tests.integration.scenes import make_scenes

#: A picture of several passes and layers, denoised, through a compositor, sampled adaptively.
EVERYTHING = """
scene.render.resolution_x, scene.render.resolution_y = 160, 96
c = scene.cycles
c.use_adaptive_sampling, c.adaptive_threshold, c.samples = True, 0.1, 32
c.use_denoising = True
layer = scene.view_layers[0]
layer.use_pass_z = layer.use_pass_normal = True
scene.view_layers.new("Second")
"""


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("still") / "still.blend"
    make_scenes({path: EVERYTHING})
    return path


def picture(farm: FarmProcess, task_id: str) -> Path:
    [path] = (farm.data / "objects" / "outputs" / task_id).iterdir()
    return path


@pytest.mark.parametrize(("image_format", "tolerance"), [("OPEN_EXR_MULTILAYER", 0.0), ("PNG", 1 / 255)])
def test_a_still_in_tiles_is_the_whole_one(farm: FarmProcess, still: Path, image_format: str, tolerance: float) -> None:
    whole = farm.submit(still, frames="1", format=image_format, split="none")
    split = farm.submit(still, frames="1", format=image_format, split="tiles:5")
    assert [farm.finish(task_id)["status"] for task_id in (whole, split)] == ["completed", "completed"]
    assert picture(farm, split).name == picture(farm, whole).name
    assert largest_difference(picture(farm, split), picture(farm, whole)) <= tolerance
    units = farm.client.list_units(split)["items"]
    assert [entry["reason"] for entry in farm.log(split) if entry["event"] == "task.split"] == [
        "each frame is rendered in 5 tiles"
    ]
    assert [unit["kind"] for unit in units] == ["render"] * 5 + ["merge"]
    assert len({unit["worker_id"] for unit in farm.log(split) if unit.get("worker_id")}) <= 2
    task = farm.client.get_task(split)
    assert (task["frames_done"], task["progress"]) == (1, 100.0)
    [output] = farm.client.list_outputs(split)["items"]
    assert output["role"] == "picture"


def test_a_split_still_survives_a_crash_of_blender_in_a_part(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["slow"], frames="1", split="tiles:4", samples=400)
    farm.until(farm.blenders, "a Blender at work")
    farm.until(lambda: any(unit["progress"] > 0 for unit in farm.client.list_units(task_id)["items"]), "some progress")
    farm.blenders()[0].kill()
    assert farm.finish(task_id)["status"] == "completed"
    assert [unit["kind"] for unit in farm.client.list_units(task_id)["items"]] == ["render"] * 4 + ["merge"]
    assert any("crash" in entry["reason"] for entry in farm.log(task_id))


def test_a_movie_has_the_frames_and_their_speed(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["quick"], frames="1-3", format="PNG", movie="h264")
    assert farm.finish(task_id)["status"] == "completed"
    roles = {output["role"]: output for output in farm.client.list_outputs(task_id)["items"]}
    assert set(roles) == {"picture", "movie"}
    movie = farm.data / "objects" / "outputs" / task_id / roles["movie"]["name"]
    with av.open(str(movie)) as container:
        [stream] = container.streams.video
        assert stream.average_rate == Fraction(24)
        assert sum(1 for _ in container.decode(stream)) == 3


def test_a_split_movie_of_exr_frames(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    """Parts feed merges, and merges feed the movie."""
    task_id = farm.submit(scenes["slow"], frames="1-2", samples=4, format="OPEN_EXR", movie="webm", split="tiles:2")
    assert farm.finish(task_id)["status"] == "completed"
    kinds = [unit["kind"] for unit in farm.client.list_units(task_id)["items"]]
    assert kinds == ["render", "render", "merge"] * 2 + ["encode"]


def test_the_last_long_frame_is_shared_and_the_same(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    # How long a frame is prepared is known from sessions only that have rendered before.
    assert farm.finish(farm.submit(scenes["quick"], frames="1-4"))["status"] == "completed"
    long = {"samples": 500, "format": "OPEN_EXR"}  # five to fifteen seconds a frame: four are enough
    shared = farm.submit(scenes["slow"], frames="1-3", **long)
    assert farm.finish(shared)["status"] == "completed"
    units = farm.client.list_units(shared)["items"]
    assert [unit["kind"] for unit in units[:3]] == ["render"] * 2 + ["merge"]
    assert {unit["frames"] for unit in units[2:]} == {"3"}
    assert len(units) > 4
    assert any("so that all workers end together" in entry["reason"] for entry in farm.log(shared))
    whole = farm.submit(scenes["slow"], frames="3", split="none", **long)
    assert farm.finish(whole)["status"] == "completed"
    [last] = [path for path in (farm.data / "objects" / "outputs" / shared).iterdir() if "3" in path.name]
    assert last.name == picture(farm, whole).name
    assert largest_difference(last, picture(farm, whole)) == 0.0
