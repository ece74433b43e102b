"""Doing what a request asks for, with the file that is open kept open for as long as it fits."""

from __future__ import annotations

import ast
import functools
import gc
import os
import re
import time
import types
from collections.abc import Callable
from typing import Any

import bpy

from blender_runtime import inspect_scene, process, progress, render_unit
from blender_runtime.devices import Witness
from blender_runtime.protocol import FrameDone, Inspect, Merge, Opened, Ready, Render, Reply, Request
from blender_runtime.thrift import Thrift

#: What differs between units without touching the scene.
_NOT_SETTINGS = frozenset({"frames", "unit_id", "task_id", "folder", "persistent_data", "part"})

#: A frame of which it does not matter that a thread of Blender's waits some milliseconds for its turn.
_LONG_FRAME_S = 2.0


class Handler:
    """Answers requests. ``threads`` fixes the number of render threads, which changes no pixel."""

    def __init__(self, reply: Callable[[int, Reply], None], threads: int | None) -> None:
        self._reply = reply
        self._threads = threads
        self._path: str | None = None
        """The file that is open."""
        self._settings: dict[str, Any] | None = None
        """The settings made in it; None: none, it is as on disk."""
        self._scene: bpy.types.Scene | None = None
        """The scene that the settings chose."""
        self._thrift = Thrift()
        self._slices_are_long = False
        self._frames_are_short = False
        """The latest one was."""

    def ready(self) -> Ready:
        return Ready(blender_version=inspect_scene.blender_version(), pid=os.getpid())

    def forget_file(self) -> None:
        """Open the file anew for the next request, as nobody knows what state this one is in."""
        self._path = self._settings = self._scene = None

    def answer(self, request_id: int, request: Request) -> dict[str, Any]:
        """Do what is asked and return the result's value. Raises whatever goes wrong."""
        if isinstance(request, (Inspect, Render, Merge)):
            process.send_output_to(request.log_path)
            process.reset_peak_memory()
        if isinstance(request, Inspect):
            self._open(request_id, request, None, render_unit.__dict__)
            return inspect_scene.inspect_open_file()
        if isinstance(request, Render):
            return self._render(request_id, request)
        if isinstance(request, Merge):
            return self._merge(request_id, request)
        return {}

    def _render(self, request_id: int, request: Render) -> dict[str, Any]:
        script = _run(request.script)
        if request.fresh:
            self.forget_file()
        self._open(request_id, request, script["UNIT"], script)
        is_part = script["UNIT"].get("part") is not None
        wanted = script["UNIT"].get("persistent_data", "file")
        self._thrift.keep(self._scene, wanted, is_part=is_part, saving_min=request.saving_min)
        witness = Witness(request.log_path)
        with progress.reporting(self._scene, lambda reply: self._reply(request_id, reply)) as report:
            for frame in request.frames:
                self._thrift.begin(self._scene, frame, is_part=is_part)
                report.begin(frame, is_short=self._frames_are_short)
                if not self._frames_are_short:
                    report.tell("Starting")
                witness.begin()
                started = time.perf_counter()
                files = script["render_frame"](self._scene, frame, request.output_dir)
                took_s = time.perf_counter() - started
                devices = witness.devices(self._scene)
                if script["UNIT"].get("device") == "gpu":
                    witness.check(self._scene, devices)
                warm = self._thrift.count_frame(self._scene, report.preparation_s, took_s, is_part=is_part)
                done = FrameDone(
                    frame=frame,
                    files=tuple(files),
                    render_seconds=took_s,
                    preparation_seconds=report.preparation_s,
                    warm=warm,
                    devices=devices,
                    memory_bytes=process.peak_memory_bytes(),
                )
                self._reply(request_id, done)
                self._frames_are_short = took_s < progress.INTERVAL_S
                self._adapt_slices(took_s)
                if self._thrift.must_save(request.memory_max_bytes):
                    self._thrift.drop_data(self._scene)
        return self._relieve(request.memory_max_bytes)

    def _adapt_slices(self, frame_s: float) -> None:
        """Get ready for frames that take as long as the latest one."""
        are_long = frame_s >= _LONG_FRAME_S
        if are_long != self._slices_are_long:
            process.compute_in_slices(long=are_long)
            self._slices_are_long = are_long

    def _relieve(self, memory_max_bytes: int) -> dict[str, Any]:
        """Give up the file where memory is short; return a result that says whether the session is to end, too."""
        if self._thrift.must_save(memory_max_bytes):
            gc.collect()  # a merge leaves what it has read to it
        if not self._thrift.must_save(memory_max_bytes):
            return {}
        self.forget_file()
        return {"restart": self._thrift.must_end()}

    def _merge(self, request_id: int, request: Merge) -> dict[str, Any]:
        from blender_runtime import merge_unit  # brings numpy, which takes its time

        script = _run(request.script)
        self._open(request_id, request, script["UNIT"], script)
        with progress.reporting(self._scene, lambda reply: self._reply(request_id, reply)) as report:
            report.begin(request.frame)
            report.tell("Merging")
            started = time.perf_counter()
            files = merge_unit.merge_frame(
                script["render_frame"], self._scene, request.frame, request.merged_path, request.output_dir
            )
            took_s = time.perf_counter() - started
        done = FrameDone(
            frame=request.frame,
            files=tuple(files),
            render_seconds=took_s,
            warm=False,
            memory_bytes=process.peak_memory_bytes(),
        )
        self._reply(request_id, done)
        self._thrift.forget()
        return self._relieve(request.memory_max_bytes)

    def _open(
        self, request_id: int, request: Inspect | Render | Merge, unit: dict[str, Any] | None, script: dict[str, Any]
    ) -> None:
        """Have the file open with the unit's settings (None: as on disk) and with no others."""
        started = time.perf_counter()
        settings = unit and {key: value for key, value in unit.items() if key not in _NOT_SETTINGS}
        is_open = self._path == request.scene_path and self._settings in (None, settings)
        if not is_open:
            self.forget_file()
            script["open_scene"](request.scene_path)
            self._path = request.scene_path
            self._frames_are_short = False
            self._thrift.opened(request.scene_path)
            self._fix_threads()
        if unit is not None and self._settings is None:
            self._scene = script["apply_settings"](unit)
            self._settings = settings
            self._thrift.chosen(self._scene)
        took_s = time.perf_counter() - started
        self._reply(request_id, Opened(scene_path=request.scene_path, open_seconds=took_s, reused=is_open))

    def _fix_threads(self) -> None:
        if self._threads is not None:
            for scene in bpy.data.scenes:
                scene.render.threads_mode = "FIXED"
                scene.render.threads = self._threads


#: What differs between the scripts of units.
_UNIT = re.compile(r"^UNIT: dict\[str, Any\] = json\.loads\((.+)\)$", re.MULTILINE)


def _run(source: str) -> dict[str, Any]:
    """Return the names of a unit's script: the very one that people download."""
    script: dict[str, Any] = {"__name__": "render_unit"}  # under this name its last lines do not run
    if unit := _UNIT.search(source):
        script["_UNIT_JSON"] = ast.literal_eval(unit[1])
        source = f"{source[: unit.start(1)]}_UNIT_JSON{source[unit.end(1) :]}"
    exec(_compiled(source), script)
    return script


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> types.CodeType:
    """Compile a script once for all units: it takes 3 ms, in which nothing renders."""
    return compile(source, "render_unit.py", "exec")
