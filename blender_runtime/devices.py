"""Which devices a frame was really rendered on, read after the frame.

Blender renders on the CPU rather than not at all: Cycles without the GPU that its preferences name, EEVEE and Workbench
by Mesa where there is no GPU driver.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import bpy

#: Far more than Blender prints for a frame that goes well.
_LOG_BYTES_MAX = 16 * 2**20

# Cycles ends each render with "Path tracing on: " and its devices, one a line (PathTrace::full_report in
# intern/cycles/integrator/path_trace.cpp): "NVIDIA H200 (OptiX) [CUDA_NVIDIA H200_0000:3b:00_OptiX]",
# "AMD EPYC (CPU) (2 threads) [CPU]". Blender 5 writes each line of its log with a margin of its own.
_REPORT = re.compile(r"Path tracing on: +(.*(?:\n(?!.* on: ).*\) \[.*\]$)*)", re.MULTILINE)
_DEVICE = re.compile(
    r"([^\s|].*?) \((CPU|CUDA|OptiX|HIP|HIPRT|oneAPI|Metal)\)(?: \(display\))?(?: \(\d+ threads\))? \[.*\]$",
    re.MULTILINE,
)
#: Kinds of the report which are another one in Blender's preferences, and for people.
_KINDS = {"HIPRT": "HIP"}


class DeviceError(Exception):
    """A frame was rendered elsewhere than it was to be."""

    kind = "device"


class Witness:
    """Looks at one frame after the other."""

    def __init__(self, log_path: str) -> None:
        self._log_path = Path(log_path)
        self._log_start = 0

    def begin(self) -> None:
        """Note what was said before the frame. Call it when the frame begins."""
        self._log_start = self._log_path.stat().st_size

    def devices(self, scene: bpy.types.Scene) -> tuple[str, ...]:
        """Return the devices of the frame, such as ``OPTIX: NVIDIA H200`` or ``CPU: AMD EPYC``; none: nobody knows.

        Cycles' own report is what counts. Where it makes none (Blender's Python package since 5.0), what was forced on
        it is as good: it renders there or fails (``_use_device`` of the unit's script).
        """
        if scene.render.engine == "CYCLES":
            return cycles_report(self._said()) or _forced_devices()
        if scene.render.engine.startswith("BLENDER_"):
            return _drawing_device()
        return ()

    def check(self, scene: bpy.types.Scene, devices: tuple[str, ...]) -> None:
        """Insist on GPUs.

        Raises:
            DeviceError: a device of the frame is none, or nobody knows of any.
        """
        others = [device for device in devices if device.startswith(("CPU: ", "SOFTWARE: "))]
        if others or not devices:
            where = f"was rendered on {', '.join(others)}" if others else "says nothing of where it was rendered"
            raise DeviceError(f"a GPU was asked for, but frame {scene.frame_current} {where}")

    def _said(self) -> str:
        with self._log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _LOG_BYTES_MAX))
            return log.read().decode(errors="replace")


def cycles_report(text: str) -> tuple[str, ...]:
    """Return the devices that Cycles says it has rendered on, each once, in the order in which it names them."""
    found = (device for report in _REPORT.finditer(text) for device in _DEVICE.finditer(report[1]))
    return tuple(
        dict.fromkeys(f"{_KINDS.get(kind, kind.upper())}: {name}" for name, kind in (one.groups() for one in found))
    )


def _forced_devices() -> tuple[str, ...]:
    import _cycles  # type: ignore[import-not-found]
    import bpy

    kind = bpy.context.preferences.addons["cycles"].preferences.compute_device_type
    kind = "CPU" if kind in ("", "NONE") else kind
    return tuple(f"{device[1]}: {device[0]}" for device in _cycles.available_devices(kind) if device[1] == kind)


def _drawing_device() -> tuple[str, ...]:
    """Return what EEVEE and Workbench draw on; Blender knows it once they have drawn something."""
    from gpu import platform  # type: ignore[import-not-found]

    try:
        backend = platform.backend_type_get()
        is_software = platform.device_type_get() == "SOFTWARE"
        return (f"{'SOFTWARE' if is_software else backend}: {platform.renderer_get()}",)
    except SystemError:  # nothing was drawn: a compositor of pictures from files, for example
        return ()
