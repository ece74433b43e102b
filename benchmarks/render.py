"""The farm against Blender's own ways to render, on the same cores, with the same Blender and the same pixels.

``python benchmarks/render.py [--quick] [--json FILE]`` makes its scenes, starts a farm of its own, and lets everybody
render each scene in turn, round by round. The farm has as many workers as a farm has by itself, one for each eight
cores, and for short frames and stills one for each core (at most eight); each renders with its share of the cores as
threads. The farm's time is that of a task: from its submission until it is completed, with all pictures in the store
and with what the farm chooses to verify verified. It has never seen the scene, which is uploaded anew each round;
uploading and inspecting are shown apart. Plain Blender has all cores as threads, and the farm is stopped meanwhile; its
time is that of its processes, start included.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from actors.node_resources import node_resources
from benchmarks.overhead import JSON
from benchmarks.render_adaptor import find_adaptor, render_by_adaptor
from benchmarks.render_cases import TITLES, Case, Contender, cases
from benchmarks.render_farm import BenchFarm, running_farm
from benchmarks.render_figures import Measured, arounds, figures_of, table_of, verdicts
from benchmarks.render_processes import Run, render_in_processes
from renderfarm.media.comparing import Difference, difference

_SCENES = Path(__file__).with_name("render_scenes.py")
_WORKERS_MAX = 8


@dataclass(kw_only=True)
class Bench:
    """Everything that renders, and where."""

    folder: Path
    farm: BenchFarm
    adaptor: Path | None
    say: Console

    def scene_file(self, case: Case) -> Path:
        return self.folder / "scenes" / case.name / f"{case.name}.blend"


# --- rendering -----------------------------------------------------------------------------------------------


def make_scenes(wanted: tuple[Case, ...], folder: Path, threads: int) -> None:
    """Make the cases' scenes, whose files name the threads that plain Blender has."""
    folder.mkdir()
    orders = {case.name: case.order(threads) for case in wanted}
    log_path = folder / "make.log"
    with log_path.open("wb") as log:
        command = [sys.executable, str(_SCENES), str(folder), json.dumps(orders)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0 or not all((folder / name / f"{name}.blend").is_file() for name in orders):
        raise SystemExit(f"cannot make the scenes; see {log_path}")


def run_round(bench: Bench, measured: Measured, number: int) -> None:
    """Let everybody render a case who renders it in this round."""
    case = measured.case
    place = bench.folder / case.name / str(number)
    for contender in case.contenders(number):
        if contender is Contender.ADAPTOR and bench.adaptor is None:
            continue
        if contender is Contender.FARM:
            run = _run_farm(bench, measured, place / contender)
        else:
            with bench.farm.stopped():
                run = _run_plain(bench, measured, contender, place / contender)
        measured.runs[contender].append(run)
        bench.say.print(f"{case.title}, round {number + 1}: {TITLES[contender]} {run.frame_s:.2f} s a frame")
    farm, plain = measured.runs[Contender.FARM][-1].pictures, measured.runs[Contender.BLENDER_A][-1].pictures
    assert farm is not None
    assert plain is not None
    measured.differences += _differences(farm, plain)
    shutil.rmtree(place)


def _differences(ours: Path, theirs: Path) -> Iterator[Difference]:
    """Compare every picture that Blender made with the farm's of the same name."""
    for path in sorted(theirs.iterdir()):
        found = difference(ours / path.name, path)
        if found.unlike is not None:
            raise SystemExit(f"{ours / path.name} is not like {path}: {found.unlike}")
        yield found


def _run_farm(bench: Bench, measured: Measured, folder: Path) -> Run:
    folder.mkdir(parents=True)
    upload = bench.farm.upload(bench.scene_file(measured.case), bench.folder / f"{measured.case.name}.zip")
    run, task = bench.farm.render(upload.asset_id, measured.case, folder)
    measured.uploads.append(upload)
    measured.tasks.append(task)
    return run


def _run_plain(bench: Bench, measured: Measured, contender: Contender, folder: Path) -> Run:
    case, scene_file = measured.case, bench.scene_file(measured.case)
    every = range(1, case.frames + 1)
    chunk = every[: case.chunk]
    match contender:
        case Contender.BLENDER_A | Contender.BLENDER_A_KEPT:
            return render_in_processes(scene_file, [every], folder, keep_data=contender is Contender.BLENDER_A_KEPT)
        case Contender.PER_FRAME:
            few = every[:: max(1, case.frames // case.few)][: case.few]
            return render_in_processes(scene_file, [range(frame, frame + 1) for frame in few], folder)
        case Contender.PER_CHUNK:
            return render_in_processes(scene_file, [chunk], folder)
        case Contender.ADAPTOR:
            assert bench.adaptor is not None
            run, measured.adaptor_around_s = render_by_adaptor(bench.adaptor, scene_file, chunk, folder)
            return run
        case Contender.FARM:
            raise ValueError("the farm is not plain")


def warm_up(bench: Bench, case: Case) -> None:
    """Let every worker start its Blender, with a scene that is none of those measured."""
    workers = len(bench.farm.threads)
    upload = bench.farm.upload(bench.scene_file(case), bench.folder / "warm-up.zip")
    bench.farm.render(upload.asset_id, replace(case, frames=8 * workers), bench.folder / f"warm-up-{workers}")


# --- the run -------------------------------------------------------------------------------------------------


def measure(
    wanted: tuple[Case, ...], workers: int | None, cores: int, folder: Path, adaptor: Path | None, say: Console
) -> JSON:
    """Let everybody render everything and return the figures; ``workers``: for all cases, not what each has."""
    started = Case(name="warm_up", title="warm-up", maker="short", frames=8 * cores, size={"samples": 8}, rounds=0)
    make_scenes((started, *wanted), folder / "scenes", cores)
    measured = [Measured(case=case) for case in wanted]
    groups: dict[int, list[Measured]] = {}
    for one in measured:
        own = min(cores, _WORKERS_MAX) if one.case.worker_per_core else 0
        groups.setdefault(own if workers is None else workers, []).append(one)
    for number, group in groups.items():
        with running_farm(folder / f"farm-{number}", number) as farm:
            say.print(f"farm of {len(farm.threads)} workers ready after {farm.start_s:.1f} s; warming up")
            _measure_on(Bench(folder=folder, farm=farm, adaptor=adaptor, say=say), started, group)
    machine = {"system": platform.platform(), "cpus": cores, "python": platform.python_version()}
    return {"machine": machine, **figures_of(measured)}


def _measure_on(bench: Bench, started: Case, group: list[Measured]) -> None:
    """Let everybody render the cases that are for the farm of the bench."""
    warm_up(bench, started)
    for one in group:
        one.threads, one.farm_start_s = bench.farm.threads, bench.farm.start_s
    for number in range(max(one.case.rounds for one in group)):
        for one in group:
            if one.case.contenders(number):
                run_round(bench, one, number)


def main() -> None:
    """Measure, print a table, and write the figures where ``--json`` says."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="few frames and one round: a try-out")
    options.add_argument("--only", action="append", metavar="CASE", help="a case; may be given several times")
    options.add_argument("--workers", type=int, help="of the farm, for all cases")
    options.add_argument("--adaptor", type=Path, metavar="PROGRAM", help="OpenJD's blender-openjd; default: the PATH's")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # nothing that was started or stopped stays so
    cores = max(1, int(node_resources().cores))
    everything = cases(cores=cores, quick=given.quick)
    wanted = tuple(case for case in everything if not given.only or case.name in given.only)
    if not wanted:
        options.error(f"the cases are {', '.join(case.name for case in everything)}")
    console = Console()
    # Stays behind after a failure, because the logs in it tell why.
    folder = Path(tempfile.mkdtemp(prefix="render-"))
    console.print(f"working in {folder}")
    figures = measure(wanted, given.workers, cores, folder, find_adaptor(given.adaptor), console)
    shutil.rmtree(folder)
    console.print(table_of(figures))
    for line in (*arounds(figures), *verdicts(figures)):
        console.print(line, highlight=False)
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
