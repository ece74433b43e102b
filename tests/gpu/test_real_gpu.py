"""Rendering on a GPU that is really there, through a whole farm: ``make test-gpu``, on a machine that has one.

Everywhere else these tests fail, so no other command runs them; what stands in for a GPU there is
``tests/integration/session/fake_gpu.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.farm_process import FarmProcess
from tests.integration.pictures import largest_difference, read_pixels

pytestmark = pytest.mark.timeout(1200)

GPU_KINDS = ("OPTIX: ", "CUDA: ", "HIP: ", "ONEAPI: ", "METAL: ")
#: What a driver takes to compile Cycles' kernels for a GPU that Blender has none ready for.
FIRST_FRAME_S = 900.0
#: Both sum up the same samples, in another order and with other roundings.
LIKE_ON_THE_CPU = 0.02
#: On a GPU no two renders have the same bits: its threads add up in the order in which they come. Seen on an H200, also
#: between two whole frames: 1.4e-6. Tiles differ from the whole frame by 2.9e-6, once denoised by 4.1e-5.
LIKE_ANOTHER_RENDER = 1e-5
LIKE_ANOTHER_DENOISED = 2e-4


def attempts(farm: FarmProcess, task_id: str) -> list[dict[str, Any]]:
    """Return every attempt of a task."""
    units = farm.client.list_units(task_id)["items"]
    return [attempt for unit in units for attempt in farm.client.get_unit(task_id, unit["id"])["attempts"]]


def rendered(farm: FarmProcess, scene: Path, **settings: Any) -> str:
    """Render on the GPU, see that it was on no CPU, and return the task."""
    task_id = farm.submit(scene, device="gpu", **settings)
    status = farm.finish(task_id, FIRST_FRAME_S)
    assert status["status"] == "completed", farm.client.get_task(task_id)["error"]
    devices = [device for attempt in attempts(farm, task_id) for device in attempt["devices"]]
    assert devices
    assert all(device.startswith(GPU_KINDS) for device in devices), devices
    return task_id


def pictures(farm: FarmProcess, task_id: str) -> list[Path]:
    return sorted((farm.data / "objects" / "outputs" / task_id).rglob("*.exr"))


def test_each_is_one_workers_own(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    [node] = farm.client.list_nodes()
    gpus = {worker["id"]: worker["gpus"] for worker in node["workers"]}
    assert set(gpus.values()) <= {0, 1}
    task_id = rendered(farm, scenes["picture"], frames="1-3", split="none")
    assert {gpus[attempt["worker_id"]] for attempt in attempts(farm, task_id)} == {1}


def test_what_asks_for_the_cpu_gets_it_and_the_picture_is_alike(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    on_gpu = rendered(farm, scenes["picture"], frames="1", split="none")
    on_cpu = farm.submit(scenes["picture"], frames="1", split="none", device="cpu")
    assert farm.finish(on_cpu)["status"] == "completed"
    [device] = {device for attempt in attempts(farm, on_cpu) for device in attempt["devices"]}
    assert device.startswith("CPU: ")
    [[ours], [theirs]] = pictures(farm, on_gpu), pictures(farm, on_cpu)
    gpu, cpu = read_pixels(ours), read_pixels(theirs)
    assert gpu.keys() == cpu.keys()
    for name, expected in cpu.items():
        assert float(expected.std()) > 0 or name.endswith(".A")
        allowed = LIKE_ON_THE_CPU * max(1e-3, float(np.abs(expected).mean()))
        assert float(np.abs(gpu[name] - expected).mean()) < allowed


@pytest.mark.parametrize("scene", ["picture", "adaptive", "denoised"])
@pytest.mark.parametrize("split", ["tiles:4", "auto"])
def test_a_split_still_is_the_whole_one(farm: FarmProcess, scenes: dict[str, Path], scene: str, split: str) -> None:
    whole = rendered(farm, scenes[scene], frames="1", split="none")
    cut = rendered(farm, scenes[scene], frames="1", split=split)
    [[one], [other]] = pictures(farm, whole), pictures(farm, cut)
    assert largest_difference(one, other) <= (LIKE_ANOTHER_DENOISED if scene == "denoised" else LIKE_ANOTHER_RENDER)


def test_eevee_draws_on_it(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    task_id = farm.submit(scenes["picture"], device="gpu", frames="1", engine="eevee")
    assert farm.finish(task_id)["status"] == "completed", farm.client.get_task(task_id)["error"]
    [attempt] = attempts(farm, task_id)
    assert attempt["devices"]
    assert all(device.startswith(("OPENGL: ", "VULKAN: ", "METAL: ")) for device in attempt["devices"])


def test_a_kept_scene_gives_the_frames_of_a_cold_one(farm: FarmProcess, scenes: dict[str, Path]) -> None:
    kept = rendered(farm, scenes["animation"], persistent_data="on")
    cold = rendered(farm, scenes["animation"], persistent_data="off")
    assert len(pictures(farm, kept)) == 16
    for ours, theirs in zip(pictures(farm, kept), pictures(farm, cold), strict=True):
        assert largest_difference(ours, theirs) <= LIKE_ANOTHER_RENDER


def test_a_worker_whose_gpu_is_hidden_refuses(
    scenes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray knows of no GPU then, any worker may try, and none renders on its CPU instead."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        monkeypatch.setenv(name, "")
    hidden = FarmProcess(tmp_path / "farm", workers="1")
    try:
        task_id = hidden.submit(scenes["picture"], frames="1", split="none", device="gpu")
        assert hidden.finish(task_id)["status"] == "failed"
        assert hidden.client.get_task(task_id)["error"]["kind"] == "device"
        assert list(hidden.client.iterate_outputs(task_id)) == []
    finally:
        hidden.stop()
