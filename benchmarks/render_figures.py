"""From measurements to the figures, the table and the verdicts of ``render.py``."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.overhead import JSON
from benchmarks.render_cases import TITLES, Case, Contender
from benchmarks.render_farm import Task, Upload
from benchmarks.render_processes import Run
from renderfarm.media.comparing import Difference

#: What issue 4 asks for: figure, case, whom the farm is set against, at least.
ASKED = (
    ("sync_bound_vs_blender_a", "sync_bound", Contender.BLENDER_A, 5.0),
    ("sampling_bound_vs_blender_a", "sampling_bound", Contender.BLENDER_A, 0.98),
    ("short_frames_vs_process_per_frame", "short_frames", Contender.PER_FRAME, 3.0),
    ("short_frames_vs_blender_a", "short_frames", Contender.BLENDER_A, 1.0),
    ("still_split_vs_one_blender", "still", Contender.BLENDER_A, 0.95),
)


@dataclass(kw_only=True)
class Measured:
    """A case's measurements, round by round."""

    case: Case
    runs: dict[Contender, list[Run]] = field(default_factory=lambda: defaultdict(list))
    uploads: list[Upload] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    """Of each of the farm's pictures from that of ``blender -a``."""
    adaptor_around_s: float | None = None
    """Start and end of the adaptor's session."""
    threads: tuple[int, ...] = ()
    """Of each worker of the farm."""
    farm_start_s: float = 0.0


# --- figures -------------------------------------------------------------------------------------------------


def figures_of(measured: Sequence[Measured]) -> JSON:
    """Return the figures that the issue names, and all cases."""
    by_name = {one.case.name: one for one in measured}
    figures: JSON = {}
    for figure, name, contender, _ in ASKED:
        if name not in by_name:
            continue
        others, farms = by_name[name].runs[contender], by_name[name].runs[Contender.FARM]
        figures[figure] = _median(a.frame_s / b.frame_s for a, b in zip(others, farms, strict=True))
        if contender is Contender.BLENDER_A:
            rendering = zip(others, farms, strict=True)
            figures[f"{figure}_without_start"] = _median((a.rendering_s or 0.0) / b.seconds for a, b in rendering)
    figures["max_pixel_difference"] = max(found.max_absolute for one in measured for found in one.differences)
    return figures | {"cases": {one.case.name: _case_figures(one) for one in measured}}


def _case_figures(one: Measured) -> JSON:
    everybody = one.case.contenders(0)
    return {
        "title": one.case.title,
        "frames": one.case.frames,
        "rounds": one.case.rounds,
        "farm_worker_threads": one.threads,
        "farm_start_s": one.farm_start_s,
        "upload_s": _median(upload.upload_s for upload in one.uploads),
        "inspection_s": _median(upload.inspection_s for upload in one.uploads),
        "contenders": {contender.value: _contender_figures(one, contender) for contender in everybody},
        "farm_last_picture_s": [task.last_picture_s for task in one.tasks],
        "farm_units": [task.units for task in one.tasks],
        "farm_frames_s": [task.frames_s for task in one.tasks],
        "adaptor_start_and_end_s": one.adaptor_around_s,
        "pixel_difference": max(found.max_absolute for found in one.differences),
        "bit_identical": all(found.is_identical for found in one.differences),
        "pixel_difference_allowed": one.case.tolerance,
    }


def _contender_figures(one: Measured, contender: Contender) -> JSON | None:
    """Return None for one that is not installed."""
    runs = one.runs[contender]
    if not runs:
        return None
    against = zip(one.runs[Contender.BLENDER_A], runs, strict=False)  # some render in the first round only
    peaks_bytes = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]
    return {
        "frames": runs[0].frames,
        "seconds": [run.seconds for run in runs],
        "rendering_s": [run.rendering_s for run in runs],
        "frame_s": _median(run.frame_s for run in runs),
        "vs_blender_a": _median(a.frame_s / b.frame_s for a, b in against),
        "peak_memory_bytes": max(peaks_bytes, default=None),
    }


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


# --- for people ----------------------------------------------------------------------------------------------


def table_of(figures: JSON) -> Table:
    """Show the cases to people."""
    table = Table(title=f"{figures['machine']['cpus']} cores", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in ("frames", "s/frame", "speed", "MiB", "pixels"):
        table.add_column(column, justify="right", no_wrap=True)
    for case in figures["cases"].values():
        table.add_row(f"[bold]{case['title']}[/bold]")
        for contender, told in case["contenders"].items():
            table.add_row(*_cells(case, Contender(contender), told))
        table.add_section()
    return table


def _cells(case: JSON, contender: Contender, told: JSON | None) -> Iterator[str]:
    threads = case["farm_worker_threads"]
    is_farm = contender is Contender.FARM
    yield f"  {TITLES[contender]}" + (f", {len(threads)} × {max(threads)} threads" if is_farm else "")
    if told is None:
        yield "not installed"
        return
    yield str(told["frames"])
    yield f"{told['frame_s']:.3f}"
    yield f"{told['vs_blender_a']:.2f} ×"
    peak = "" if told["peak_memory_bytes"] is None else f"{told['peak_memory_bytes'] / 2**20:.0f}"
    yield f"{len(threads)} × {peak}" if is_farm else peak
    pixels = "same bits" if case["bit_identical"] else f"{case['pixel_difference']:.2g}"
    yield pixels if is_farm else ""


def arounds(figures: JSON) -> Iterator[str]:
    """Tell what was around the farm's tasks."""
    starts = sorted({case["farm_start_s"] for case in figures["cases"].values()})
    yield f"the farm: ready after {', '.join(f'{start_s:.1f}' for start_s in starts)} s"
    for case in figures["cases"].values():
        units = ", ".join(f"{count} {kind}" for kind, count in case["farm_units"][-1].items())
        times = f"upload {case['upload_s']:.1f} s, inspection {case['inspection_s']:.1f} s"
        yield f"{case['title']}: {times}; units: {units}"


def verdicts(figures: JSON) -> Iterator[str]:
    """Tell which of the issue's figures are reached."""
    for figure, _, _, least in ASKED:
        if figure in figures:
            word = "reached" if figures[figure] >= least else "[bold]missed[/bold]"
            yield f"{figure}: {figures[figure]:.2f}, asked {least:g}: {word}"
    wrong = [
        f"{case['title']} by {case['pixel_difference']:.2g}"
        for case in figures["cases"].values()
        if case["pixel_difference"] > case["pixel_difference_allowed"]
    ]
    yield f"pixels: [bold]missed[/bold] in {'; '.join(wrong)}" if wrong else "pixels: every picture as it should be"
