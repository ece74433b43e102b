"""What the farm costs: the same frames by plain Blender and through the farm, in turn, on this machine.

``python benchmarks/overhead.py [--json FILE]`` starts a farm of its own, renders once to warm it up, then compares
round by round. The ratio sets the farm's time for a task (submitted to completed, all of its worker's time included)
against the time that plain Blender spends rendering; what either needs to get going is shown apart. A unit's overhead
is the time from its placement to its commit, less what Blender itself took for the frame.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from renderfarm.client import FarmClient

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 60.0

JSON = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """The frames that both sides render."""

    scene: Path
    first: int
    last: int
    percent: int
    samples: int

    @property
    def frames(self) -> int:
        return self.last - self.first + 1

    def settings(self) -> JSON:
        """As the farm takes it."""
        return {"frames": f"{self.first}-{self.last}", "percent": self.percent, "samples": self.samples}


@dataclass(frozen=True, kw_only=True)
class PlainRun:
    """One process of plain Blender."""

    process_s: float
    load_s: float
    open_s: float
    render_s: float


@dataclass(frozen=True, kw_only=True)
class FarmRun:
    """One task on the farm."""

    task_s: float
    """Submitted to completed."""
    overheads_s: tuple[float, ...]
    """Of each unit."""


# --- plain Blender -------------------------------------------------------------------------------------------


def run_plain(job: Job, folder: Path) -> PlainRun:
    """Render the job by one process of Blender's Python module."""
    result, output = folder / "plain.json", folder / "plain" / "frame_"
    order = {"file": str(job.scene), "first": job.first, "last": job.last}
    order |= {"percent": job.percent, "samples": job.samples, "output": str(output)}
    command = [sys.executable, str(ROOT / "benchmarks" / "plain_blender.py"), json.dumps(order), str(result)]
    started = time.perf_counter()
    with (folder / "plain.log").open("wb") as log:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    process_s = time.perf_counter() - started
    written = len(list(output.parent.glob("frame_*")))
    if written != job.frames:
        raise SystemExit(f"plain Blender wrote {written} of {job.frames} frames; see {folder / 'plain.log'}")
    return PlainRun(process_s=process_s, **json.loads(result.read_text()))


# --- the farm ------------------------------------------------------------------------------------------------


@contextmanager
def started_farm(folder: Path, **settings: str) -> Iterator[tuple[str, float]]:
    """Start a farm of its own with these settings; give its URL and the seconds from start to ready."""
    command = [sys.executable, "-m", "serve_app", "--data", str(folder / "data"), "--port", "0", "--stop-on-eof"]
    environment = os.environ | {f"RENDERFARM_{name.upper()}": value for name, value in settings.items()}
    environment |= {"RENDERFARM_RUNTIME": str(folder / "run"), "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with (
        (folder / "farm.log").open("wb") as log,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the farm ended at once; see {folder / 'farm.log'}"}
        try:
            if answer.get("event") != "ready":
                raise SystemExit(f"the farm did not start: {answer['error']}")
            yield answer["url"], time.perf_counter() - started
        finally:
            process.stdin.close()  # asks the farm to stop
            process.wait(STOP_TIMEOUT_S)


def run_on_farm(client: FarmClient, asset_id: str, job: Job) -> FarmRun:
    """Render the job as a task and read from the farm's own records how long everything took."""
    task_id = client.submit_task(asset_id, job.settings())["id"]
    for _ in client.events(task_id):
        pass  # the stream ends with the task
    task = client.get_task(task_id)
    if task["status"] != "completed":
        raise SystemExit(f"the farm's task {task_id} has {task['status']}: {task['error']}")
    task_s = seconds(task["finished_at"]) - seconds(task["created_at"])
    return FarmRun(task_s=task_s, overheads_s=unit_overheads_s(client, task_id))


def unit_overheads_s(client: FarmClient, task_id: str) -> tuple[float, ...]:
    """From placed to committed, less the render itself, for each unit of a task, in the order of placement."""
    placed: dict[str, float] = {}
    committed: dict[str, float] = {}
    for entry in client.iterate_log(task_id):
        if entry["event"] == "unit.state" and entry["new"] in ("running", "succeeded"):
            times = placed if entry["new"] == "running" else committed
            times[entry["unit_id"]] = seconds(entry["at"])
    render_s = dict.fromkeys(placed, 0.0)
    for output in client.iterate_outputs(task_id):
        render_s[output["unit_id"]] += output["render_seconds"]
    return tuple(committed[unit] - placed[unit] - render_s[unit] for unit in placed)


def seconds(timestamp: str) -> float:
    """Read a time of the HTTP API."""
    return datetime.fromisoformat(timestamp).timestamp()


# --- the comparison ------------------------------------------------------------------------------------------


def measure(job: Job, rounds: int, folder: Path, say: Console) -> JSON:
    """Run both sides in turn and return the figures."""
    with started_farm(folder) as (url, farm_start_s), FarmClient(url) as client:
        say.print(f"farm ready after {farm_start_s:.1f} s; warming up")
        asset_id = client.upload_asset(job.scene)["id"]
        cold = run_on_farm(client, asset_id, job)
        plains: list[PlainRun] = []
        farms: list[FarmRun] = []
        for number in range(1, rounds + 1):
            plains.append(run_plain(job, folder))
            farms.append(run_on_farm(client, asset_id, job))
            plain_s, farm_s = plains[-1].render_s, farms[-1].task_s
            say.print(f"round {number} of {rounds}: Blender {plain_s:.2f} s, farm {farm_s:.2f} s")
    warm_overheads_s = sorted(overhead for farm in farms for overhead in farm.overheads_s)
    return {
        "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "frames": job.frames,
        "rounds": rounds,
        "farm_vs_blender_ratio": median(f.task_s / p.render_s for p, f in zip(plains, farms, strict=True)),
        "farm_vs_blender_process_ratio": median(f.task_s / p.process_s for p, f in zip(plains, farms, strict=True)),
        "unit_overhead_ms_median": 1000 * median(warm_overheads_s),
        "unit_overhead_ms_p95": 1000 * warm_overheads_s[int(0.95 * (len(warm_overheads_s) - 1))],
        "blender_frame_s": median(plain.render_s / job.frames for plain in plains),
        "farm_frame_s": median(farm.task_s / job.frames for farm in farms),
        "blender_start_s": median(plain.process_s - plain.render_s for plain in plains),
        "farm_start_s": farm_start_s,
        "farm_first_task_extra_s": cold.task_s - median(farm.task_s for farm in farms),
        "farm_first_unit_overhead_ms": 1000 * cold.overheads_s[0],
    }


def median(values: Any) -> float:
    """The median, as a plain float."""
    return float(statistics.median(values))


def table_of(figures: JSON) -> Table:
    """Show the figures to people."""
    table = Table(title=f"{figures['frames']} frames, {figures['rounds']} rounds, medians", title_justify="left")
    table.add_column("")
    table.add_column("plain Blender", justify="right")
    table.add_column("farm", justify="right")
    table.add_row("a frame, warm", f"{figures['blender_frame_s']:.3f} s", f"{figures['farm_frame_s']:.3f} s")
    table.add_row("farm : Blender's rendering", "1", f"{figures['farm_vs_blender_ratio']:.3f}")
    table.add_row("farm : Blender's whole process", "1", f"{figures['farm_vs_blender_process_ratio']:.3f}")
    overhead = f"{figures['unit_overhead_ms_median']:.0f} ms (95 %: {figures['unit_overhead_ms_p95']:.0f} ms)"
    table.add_row("a unit's overhead, warm", "", overhead, end_section=True)
    table.add_row("cold: start", f"{figures['blender_start_s']:.2f} s", f"{figures['farm_start_s']:.2f} s")
    table.add_row("cold: the first task's extra time", "", f"{figures['farm_first_task_extra_s']:.2f} s")
    return table


def main() -> None:
    """Measure, print a table, and write the figures where ``--json`` says."""
    options = argparse.ArgumentParser(description="Farm against plain Blender on the same frames.")
    options.add_argument("--scene", type=Path, default=ROOT / "examples" / "animation.blend")
    options.add_argument("--first", type=int, default=1)
    options.add_argument("--last", type=int, default=24)
    options.add_argument("--percent", type=int, default=50, help="of the scene's resolution")
    options.add_argument("--samples", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    given = options.parse_args()
    job = Job(
        scene=given.scene.absolute(), first=given.first, last=given.last, percent=given.percent, samples=given.samples
    )
    console = Console()
    # Stays behind after a failure, because the logs in it tell why.
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    console.print(f"working in {folder}")
    figures = measure(job, given.rounds, folder, console)
    shutil.rmtree(folder)
    console.print(table_of(figures))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
