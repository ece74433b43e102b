"""The farm's side of ``render.py``: a real farm, and what its API tells about a task."""

from __future__ import annotations

import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.overhead import JSON, seconds, started_farm
from benchmarks.render_cases import Case
from benchmarks.render_processes import Run
from renderfarm.client import FarmClient

_POLL_S = 0.05
_READY_S = 60.0
#: For what its processes make up for after they were stopped, which no farm would have to that was not: without it 100
#: short frames took 11.7 s instead of 11.5, which is what they take in a farm that has just run on (measured).
_SETTLE_S = 3.0
_UNITS_MAX = 1000


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What comes before a task."""

    asset_id: str
    upload_s: float
    inspection_s: float
    """From the end of the upload until the farm knows the scene."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What became of a task, beside its ``Run``."""

    last_picture_s: float
    """From its submission until its last picture was committed; what the task did after that is verifying."""
    units: JSON
    """How many of each kind."""
    frames_s: tuple[float, ...]
    """What Blender took for each picture, in the order in which they were committed."""


class BenchFarm:
    """A farm that runs, with as many threads to each worker as there are cores for it."""

    def __init__(self, client: FarmClient, start_s: float, process: psutil.Process) -> None:
        self.client = client
        self.start_s = start_s
        self._process = process
        [node] = client.list_nodes()
        self.threads = tuple(int(worker["threads"]) for worker in node["workers"])
        """Of each worker."""

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the farm's processes for a while, as in a suspended machine, so that others have all of its cores.

        An idle farm of two workers took 8 to 9 % of a core, most of it Ray's (measured).
        """
        stopped: dict[int, psutil.Process] = {}
        while found := [process for process in self._processes() if process.pid not in stopped]:
            for process in found:  # the longer this takes, the fewer can start another
                process.suspend()
                stopped[process.pid] = process
        try:
            yield
        finally:
            for process in stopped.values():
                process.resume()
        self._wait_until_ready()
        time.sleep(_SETTLE_S)

    def _processes(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while (state := self.client.check_ready())["status"] != "ready":
            if time.monotonic() > deadline:
                raise SystemExit(f"the farm has not come back: {state}")
            time.sleep(_POLL_S)

    def upload(self, scene_file: Path, packed: Path) -> Upload:
        """Upload a scene, as a zip where it has more files than its own, and wait until it is ready."""
        files = [path for path in scene_file.parent.rglob("*") if path.is_file()]
        main = None if len(files) == 1 else scene_file.name
        if main is not None and not packed.exists():
            with zipfile.ZipFile(packed, "w") as archive:
                for path in files:
                    archive.write(path, path.relative_to(scene_file.parent))
        began = time.perf_counter()
        asset = self.client.upload_asset(packed if main else scene_file, main=main)
        uploaded = time.perf_counter()
        while asset["status"] == "pending":
            time.sleep(_POLL_S)
            asset = self.client.get_asset(asset["id"])
        if asset["status"] != "ready":
            raise SystemExit(f"the farm does not take {scene_file.name}: {asset['error']}")
        return Upload(asset_id=asset["id"], upload_s=uploaded - began, inspection_s=time.perf_counter() - uploaded)

    def render(self, asset_id: str, case: Case, pictures: Path) -> tuple[Run, Task]:
        """Render a case as a task with the farm's defaults, and fetch its pictures."""
        began = time.time()  # as the farm tells its own times by the clock of this very machine
        task_id = self.client.submit_task(asset_id, {"frames": f"1-{case.frames}"})["id"]
        for _ in self.client.events(task_id):
            pass  # the stream ends with the task
        task = self.client.get_task(task_id)
        if task["status"] != "completed":
            raise SystemExit(f"the farm's task {task_id} has {task['status']}: {task['error']}")
        outputs = sorted(self.client.iterate_outputs(task_id), key=lambda output: str(output["committed_at"]))
        for output in outputs:
            self.client.download_output(task_id, output, pictures / output["name"])
        units = self.client.list_units(task_id, limit=_UNITS_MAX)["items"]
        run = Run(
            seconds=seconds(task["finished_at"]) - began,
            frames=case.frames,
            peak_memory_bytes=max(self._peaks_bytes(task_id, units), default=None),
            pictures=pictures,
        )
        told = Task(
            last_picture_s=seconds(outputs[-1]["committed_at"]) - began,
            units=dict(Counter(unit["kind"] for unit in units)),
            frames_s=tuple(output["render_seconds"] for output in outputs),
        )
        return run, told

    def _peaks_bytes(self, task_id: str, units: list[JSON]) -> Iterator[int]:
        for unit in units:
            for attempt in self.client.get_unit(task_id, unit["id"])["attempts"]:
                if attempt["peak_memory_bytes"] is not None:
                    yield attempt["peak_memory_bytes"]


@contextmanager
def running_farm(folder: Path, workers: int) -> Iterator[BenchFarm]:
    """Run a farm with so many workers on this machine; 0: as many as it has by itself."""
    folder.mkdir()
    with started_farm(folder, workers=str(workers)) as (url, start_s), FarmClient(url) as client:
        process = next(child for child in psutil.Process().children() if "serve_app" in child.cmdline())
        yield BenchFarm(client, start_s, process)
