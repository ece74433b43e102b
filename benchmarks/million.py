"""A farm with a million units in its queue: what they cost to submit, to start with, to keep and to choose from.

``python benchmarks/million.py [--json FILE] [--units N]`` needs MariaDB or MySQL, RabbitMQ and Redis; it works in a
database of its own. Units are submitted and admitted by the farm's own services; then the real scheduler actor starts
on that database, and the first of its workers' commits ends the start-up. Deciding is timed at the first batch of a
thousand units and with all of them queued, so that the ratio shows what the queue's length costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.services import bench_database, local_ray, mysql, nothing_left_behind, service_parser
from renderfarm.settings import Settings

_FRAMES = 1000
_DECISIONS = 30


def _submit(farm: Any, epoch: int, asset_id: str, tasks: int) -> tuple[float, float]:
    """Submit and admit tasks of a thousand units; return the seconds for each of the two."""
    from renderfarm.auth import LOCAL_OWNER
    from renderfarm.domain.render_settings import RenderSettings
    from renderfarm.services import admission
    from renderfarm.services.tasks import submit_task

    settings = RenderSettings(frames=f"1-{_FRAMES}")
    began_s = time.perf_counter()
    for _ in range(tasks):
        submit_task(farm, LOCAL_OWNER, asset_id=asset_id, settings=settings, name=None, priority=50)
    submitted_s = time.perf_counter() - began_s
    left = tasks
    while left:
        admission.relay_outbox(farm, epoch)
        left -= admission.admit_queued(farm, epoch)
    return submitted_s, time.perf_counter() - began_s - submitted_s


def _decision_ms(farm: Any, epoch: int, asset_id: str) -> float:
    """Return the median time to place one unit, durably."""
    from renderfarm.domain.policy import Slot
    from renderfarm.services import failing, placement

    slot = Slot(worker_id="bench", free=True, blenders=frozenset({"4.5"}), gpus=0, open_scene=asset_id)
    times_s = []
    for _ in range(_DECISIONS):
        began_s = time.perf_counter()
        placed = placement.place_units(farm, epoch, [slot], {"bench": "node"}).placed
        times_s.append(time.perf_counter() - began_s)
        failing.hand_back(farm, [one.lease for one in placed], "only measured")
    return 1000 * statistics.median(times_s)


def _register_worker(farm: Any) -> None:
    """Write down a worker, as admission chooses among the Blenders of those that are there."""
    from benchmarks.noop_farm import worker_record
    from renderfarm.services import placement

    placement.record_workers(farm, [worker_record("bench", "4.5")])


def _start_up(settings: Settings, url: str) -> tuple[float, int]:
    """Start the scheduler; return the seconds to its workers' first commit, and its memory then."""
    with mysql(url, urlsplit(url).path.strip("/")) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT epoch FROM leader")
        [before] = cursor.fetchone() or (0,)
        return _first_commit(settings, cursor, before)


def _first_commit(settings: Settings, cursor: Any, before: int) -> tuple[float, int]:
    from benchmarks.noop_farm import running_scheduler

    began_s = time.perf_counter()
    with running_scheduler(settings):
        while not cursor.execute("SELECT 1 FROM units WHERE state = 'succeeded' AND epoch > %s LIMIT 1", (before,)):
            time.sleep(0.02)
        elapsed_s = time.perf_counter() - began_s
        schedulers = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "NoOpSchedulerActor" in str(process.info["cmdline"])
        ]
        return elapsed_s, max(process.memory_full_info().pss for process in schedulers)


def _run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    name = f"renderfarm_million_{os.getpid()}"
    with bench_database(options.mysql, name) as url, tempfile.TemporaryDirectory(prefix="renderfarm-bench-") as folder:
        settings = Settings(
            data=Path(folder),
            name=name.replace("_", "-"),
            database_url=url,
            amqp_url=options.amqp,
            redis_url=options.redis,
            workers=2,
        )
        with nothing_left_behind(options.amqp, options.redis, settings.name), local_ray(2):
            from actors.handles import RayCompute
            from benchmarks.noop_farm import add_asset
            from renderfarm.services import placement
            from renderfarm.wiring import close_farm, prepare_farm

            farm = prepare_farm(settings, RayCompute())
            asset_id = add_asset(farm)
            epoch = placement.take_leadership(farm, "benchmark")
            _register_worker(farm)
            _submit(farm, epoch, asset_id, 1)
            few_ms = _decision_ms(farm, epoch, asset_id)
            empty_s, empty_bytes = _start_up(settings, url)
            epoch = placement.take_leadership(farm, "benchmark")
            _register_worker(farm)
            console.print(f"submitting {options.units:,} units …")
            submitted_s, admitted_s = _submit(farm, epoch, asset_id, options.units // _FRAMES)
            many_ms = _decision_ms(farm, epoch, asset_id)
            close_farm(farm)
            full_s, full_bytes = _start_up(settings, url)
        size_bytes = _table_bytes(url)
    return {
        "units": options.units,
        "submit_s": submitted_s,
        "admit_s": admitted_s,
        "start_up_s": full_s,
        "start_up_empty_s": empty_s,
        "scheduler_bytes": full_bytes,
        "scheduler_bytes_per_unit": max(0, full_bytes - empty_bytes) / options.units,
        "database_bytes_per_unit": size_bytes / options.units,
        "decision_ms": many_ms,
        "decision_vs_short_queue": many_ms / few_ms,
    }


def _table_bytes(url: str) -> int:
    name = urlsplit(url).path.strip("/")
    with mysql(url, name) as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE units")
        cursor.execute(
            "SELECT data_length + index_length FROM information_schema.tables"
            " WHERE table_schema = %s AND table_name = 'units'",
            (name,),
        )
        return int((cursor.fetchone() or (0,))[0])


def _show(console: Console, result: dict[str, Any]) -> None:
    table = Table(title=f"{result['units']:,} queued units")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for what, value in (
        ("submitting them, in tasks of a thousand", f"{result['submit_s']:.1f} s"),
        ("admitting them", f"{result['admit_s']:.1f} s ({result['units'] / result['admit_s']:,.0f} units/s)"),
        ("scheduler's start to its first commit", f"{result['start_up_s']:.1f} s"),
        ("the same with one task queued", f"{result['start_up_empty_s']:.1f} s"),
        ("the scheduler's memory", f"{result['scheduler_bytes'] / 2**20:.0f} MiB"),
        ("… that each unit takes", f"{result['scheduler_bytes_per_unit']:.1f} bytes"),
        ("the database's room for each unit", f"{result['database_bytes_per_unit']:.0f} bytes"),
        ("deciding and writing down one placement", f"{result['decision_ms']:.1f} ms"),
        ("… against a queue of a thousand", f"{result['decision_vs_short_queue']:.2f} ×"),
    ):
        table.add_row(what, value)
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = service_parser(__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=1_000_000)
    options = parser.parse_args()
    console = Console()
    result = _run(options, console)
    _show(console, result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
