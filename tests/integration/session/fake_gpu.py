"""A GPU that is not there, for the Blender of a test: Python imports this as ``sitecustomize`` from its PYTHONPATH.

It changes what Cycles tells of its devices, as soon as ``bpy`` is imported; FAKE_GPU says how:

- ``works``: Cycles takes the GPU, and says so at the end of each render;
- ``mute``: the same, but Cycles says nothing, as Blender's Python package does since 5.0;
- ``falls_back``: Cycles takes the CPU instead, without a word;
- ``is_lost``: the GPU is gone when the render begins;
- ``dies``: it works for the first frame, and is gone for the next.

Whatever it says, the pictures are the CPU's, and all of Cycles' own errors are real.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HOW = os.environ["FAKE_GPU"]
GPU = ("NVIDIA H200", "OPTIX", "CUDA_NVIDIA H200_0000:3b:00_OptiX", False, True, True, True, True)
REPORT = b"\nFull path tracing report\n\nPath tracing on: NVIDIA H200 (OptiX) [CUDA_NVIDIA H200_0000:3b:00_OptiX]\n\n"


class AfterBpy(MetaPathFinder):
    """Changes Cycles once it is there."""

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name != "bpy":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("bpy")
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            change_cycles()

        loader.exec_module = execute_and_change
        return spec


def change_cycles() -> None:
    import _cycles  # type: ignore[import-not-found]
    import bpy

    devices, force = _cycles.available_devices, _cycles.set_device_override

    def available_devices(kind: str) -> tuple[Any, ...]:
        gpus = (GPU,) if kind in ("OPTIX", "NONE") else ()
        return gpus + tuple(devices("CPU"))

    @bpy.app.handlers.persistent  # type: ignore[untyped-decorator]
    def report(*_: object) -> None:
        if bpy.context.preferences.addons["cycles"].preferences.compute_device_type == "OPTIX":
            os.write(2, REPORT)
        if HOW == "dies":
            force("OPTIX")

    _cycles.available_devices = available_devices
    if HOW != "is_lost":
        _cycles.set_device_override = lambda _kind: True
    if HOW in ("works", "dies"):
        bpy.app.handlers.render_post.append(report)


if HOW in ("works", "mute", "dies"):
    # Or the real Cycles would tell of the CPU that it really takes.
    os.environ.pop("GLOG_vmodule", None)
sys.meta_path.insert(0, AfterBpy())
