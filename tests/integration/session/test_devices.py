"""Where a session renders, and that it says so. The GPUs are fakes (``fake_gpu``); all that uses them is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.blender_session import SessionFailed
from actors.blenders import Blender
from blender_runtime.protocol import FrameDone
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.render_settings import Device, Engine
from tests.integration.session.bench import PLAIN, Bench, Run, same

H200 = ("OPTIX: NVIDIA H200",)
ON_GPU = replace(PLAIN, device=Device.GPU)

WithGpu = Callable[[str], Bench]


@pytest.fixture
def with_gpu(run: Run[Any], blender: Blender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WithGpu]:
    """Start a session that has a GPU which behaves in the way that is named."""
    benches: list[Bench] = []
    python = tmp_path / "python"
    python.mkdir()
    (python / "sitecustomize.py").write_text(Path(__file__).with_name("fake_gpu.py").read_text())

    def start(how: str) -> Bench:
        monkeypatch.setenv("PYTHONPATH", str(python))
        monkeypatch.setenv("FAKE_GPU", how)
        benches.append(Bench(run, blender, tmp_path / "session"))
        return benches[-1]

    yield start
    for bench in benches:
        bench.close()


def refusal(bench: Bench, scene: Path, folder: Path, **changes: Any) -> str:
    """Render with a GPU where that must fail; return why it did."""
    with pytest.raises(SessionFailed) as raised:
        bench.render(replace(ON_GPU, **changes), scene, folder / "refused", folder / "log")
    assert raised.value.failure.kind is FailureKind.DEVICE
    return raised.value.failure.message


def test_the_cpu_is_named(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    for device in (Device.AUTO, Device.CPU):
        spec = replace(PLAIN, device=device)
        [done] = bench.render(spec, scenes / "plain.blend", tmp_path / device, tmp_path / "log")
        [name] = done.devices
        assert name.startswith("CPU: ")
    assert "Path tracing on: " in (tmp_path / "log").read_text()


def test_what_workbench_draws_on_is_named_and_software_is_no_gpu(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    spec = replace(PLAIN, engine=Engine.WORKBENCH)
    [done] = bench.render(spec, scenes / "plain.blend", tmp_path / "auto", tmp_path / "log")
    [name] = done.devices
    assert name.startswith("SOFTWARE: ")
    message = refusal(bench, scenes / "plain.blend", tmp_path, engine=Engine.WORKBENCH)
    assert message == f"a GPU was asked for, but frame 1 was rendered on {name}"


@pytest.mark.parametrize("how", ["works", "mute"])
def test_who_asks_for_a_gpu_gets_it(with_gpu: WithGpu, scenes: Path, tmp_path: Path, how: str) -> None:
    bench = with_gpu(how)
    done = bench.render(replace(ON_GPU, frames=(1, 2)), scenes / "plain.blend", tmp_path / "out", tmp_path / "log")
    assert [frame.devices for frame in done] == [H200, H200]


def test_each_unit_of_a_warm_session_has_the_device_that_it_asks_for(
    with_gpu: WithGpu, scenes: Path, tmp_path: Path
) -> None:
    bench = with_gpu("mute")

    def devices(device: Device, scene: str) -> tuple[str, ...]:
        spec = replace(PLAIN, device=device)
        [done] = bench.render(spec, scenes / f"{scene}.blend", tmp_path / "out", tmp_path / "log")
        return done.devices

    [cpu] = devices(Device.AUTO, "plain")  # as the file says
    assert cpu.startswith("CPU: ")
    assert devices(Device.GPU, "plain") == H200
    assert devices(Device.CPU, "plain") == (cpu,)
    assert devices(Device.AUTO, "wants_gpu") == H200
    assert devices(Device.CPU, "wants_gpu") == (cpu,)
    assert devices(Device.AUTO, "plain") == (cpu,)


def test_a_file_that_asks_for_a_gpu_by_itself_may_do_without(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    pictures: list[FrameDone] = []
    for name in ("wants_gpu", "plain"):
        pictures += bench.render(PLAIN, scenes / f"{name}.blend", tmp_path / name, tmp_path / f"{name}.log")
    assert pictures[0].devices == pictures[1].devices
    assert same(pictures[0].files[0], pictures[1].files[0])
    assert "there is none: Cycles renders on the CPU" in (tmp_path / "wants_gpu.log").read_text()


def test_a_gpu_that_cycles_silently_does_without_fails_the_frame(
    with_gpu: WithGpu, scenes: Path, tmp_path: Path
) -> None:
    bench = with_gpu("falls_back")
    message = refusal(bench, scenes / "plain.blend", tmp_path)
    assert message.startswith("a GPU was asked for, but frame 1 was rendered on CPU: ")
    assert bench.session.alive


def test_a_gpu_that_is_lost_before_the_render_fails_the_frame(with_gpu: WithGpu, scenes: Path, tmp_path: Path) -> None:
    message = refusal(with_gpu("is_lost"), scenes / "plain.blend", tmp_path)
    assert message == "Found no Cycles device of the specified type"
    assert list((tmp_path / "refused").iterdir()) == []


def test_a_gpu_that_dies_between_frames_fails_the_rest(with_gpu: WithGpu, scenes: Path, tmp_path: Path) -> None:
    bench = with_gpu("dies")
    assert refusal(bench, scenes / "plain.blend", tmp_path, frames=(1, 2, 3)) == (
        "Found no Cycles device of the specified type"
    )
    assert [path.name for path in (tmp_path / "refused").iterdir()] == ["shot_0001.png"]


def test_without_a_gpu_nothing_is_rendered(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    assert refusal(bench, scenes / "plain.blend", tmp_path) == "a GPU was asked for, but Cycles finds none here"
    assert not (tmp_path / "refused").exists()
