"""What Cycles says of its devices, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blender_runtime.devices import DeviceError, Witness, cycles_report

# As bpy 4.5.15 prints it; the device's line as PathTrace::full_report of that version makes it.
REPORT = """\
Fra:1 Mem:8.39M (Peak 8.39M) | Time:00:00.08 | Mem:0.13M, Peak:0.13M | Scene, ViewLayer | Sample 2/2
I1122 00:18:29.980072 31041 session.cpp:173]\x20
Full path tracing report

Path tracing on: {devices}

Denoising on: AMD EPYC (CPU) (2 threads) [CPU]

Render Scheduler Summary
"""
CPU = "AMD EPYC (CPU) (2 threads) [CPU]"
H200 = "NVIDIA H200 (OptiX) [CUDA_NVIDIA H200_0000:3b:00_OptiX]"


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (CPU, ("CPU: AMD EPYC",)),
        (H200, ("OPTIX: NVIDIA H200",)),
        ("NVIDIA GeForce RTX 4090 (CUDA) (display) [CUDA_x_0000:01:00]", ("CUDA: NVIDIA GeForce RTX 4090",)),
        ("AMD Radeon RX 7900 XT (TM) (HIPRT) [HIP_x]", ("HIP: AMD Radeon RX 7900 XT (TM)",)),
        ("Intel(R) Arc(TM) A770 Graphics (oneAPI) [ONEAPI_x]", ("ONEAPI: Intel(R) Arc(TM) A770 Graphics",)),
        ("Apple M3 Max (GPU - 40 cores) (Metal) [METAL_x]", ("METAL: Apple M3 Max (GPU - 40 cores)",)),
        # Several of them, and one named twice, as two of a kind are.
        (f"{H200}\n{' ' * 17}{H200}\n{' ' * 17}{CPU}", ("OPTIX: NVIDIA H200", "CPU: AMD EPYC")),
        ("something new", ()),
    ],
)
def test_devices_are_read_from_cycles_report(devices: str, told: tuple[str, ...]) -> None:
    assert cycles_report(REPORT.format(devices=devices)) == told


def test_each_view_layer_has_a_report_of_its_own() -> None:
    assert cycles_report(REPORT.format(devices=H200) + REPORT.format(devices=CPU)) == (
        "OPTIX: NVIDIA H200",
        "CPU: AMD EPYC",
    )


def test_a_margin_and_a_missing_empty_line_change_nothing() -> None:
    margin = "00:01.213  cycles           | "
    lines = ["INFO", "Full path tracing report", f"Path tracing on: {H200}", f"Denoising on: {CPU}", "Mode: Headless"]
    assert cycles_report("\n".join(margin + line for line in lines)) == ("OPTIX: NVIDIA H200",)


def test_nothing_said_is_nothing_known() -> None:
    assert cycles_report("Fra:1 Mem:8.39M | Scene, ViewLayer | Sample 2/2\nSaved: '/x/0001.png'\n") == ()


def test_what_was_said_before_the_frame_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(REPORT.format(devices=H200))
    witness = Witness(str(log))
    witness.begin()
    with log.open("a") as stream:
        stream.write(REPORT.format(devices=CPU))
    assert witness.devices(cycles_scene()) == ("CPU: AMD EPYC",)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (("CPU: AMD EPYC",), "a GPU was asked for, but frame 7 was rendered on CPU: AMD EPYC"),
        (("OPTIX: NVIDIA H200", "CPU: AMD EPYC"), "a GPU was asked for, but frame 7 was rendered on CPU: AMD EPYC"),
        (("SOFTWARE: llvmpipe",), "a GPU was asked for, but frame 7 was rendered on SOFTWARE: llvmpipe"),
        ((), "a GPU was asked for, but frame 7 says nothing of where it was rendered"),
    ],
)
def test_anything_but_gpus_is_an_error(tmp_path: Path, devices: tuple[str, ...], message: str) -> None:
    with pytest.raises(DeviceError) as raised:
        Witness(str(tmp_path)).check(cycles_scene(), devices)
    assert (raised.value.kind, str(raised.value)) == ("device", message)


def test_gpus_are_what_was_asked_for(tmp_path: Path) -> None:
    Witness(str(tmp_path)).check(cycles_scene(), ("OPTIX: NVIDIA H200", "OPTIX: NVIDIA H200 NVL"))


def cycles_scene() -> Any:
    return SimpleNamespace(frame_current=7, render=SimpleNamespace(engine="CYCLES"))
