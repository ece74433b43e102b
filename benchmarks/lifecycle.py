"""How many units a second the farm can handle: submitted, leased, running, committed, on the services of a studio.

``python benchmarks/lifecycle.py [--json FILE]`` needs MariaDB or MySQL, RabbitMQ and Redis; it works in a database of
its own. Everything is the farm's own code in its own processes (scheduler actor, worker actors, outbox, queue, leases,
commits, status cache, events); only the render and the object store do nothing. Beside it stand the machine's floors
(single conditional updates, confirmed publishes) and Celery on the same RabbitMQ and Redis, in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.services import bench_database, local_ray, mysql, nothing_left_behind, service_parser
from renderfarm.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_FLOOR_SECONDS = 3.0
_CELERY_TASKS = 3000


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is submitted."""

    tasks: int
    frames: int
    """Units of each task."""

    @property
    def units(self) -> int:
        return self.tasks * self.frames


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What became of a load."""

    units_per_s: float
    latencies_s: tuple[float, ...]
    """Of each unit, from its task's submission to its commit."""
    attempts_s: tuple[float, ...]
    """Of each unit, from its lease to its commit."""


# --- the farm ------------------------------------------------------------------------------------------------


def _settle(tasks: Sequence[str], farm: Any, timeout_s: float) -> None:
    """Wait until every task has completed."""
    from renderfarm.auth import LOCAL_OWNER
    from renderfarm.domain.states import TASK_ENDED, TaskState
    from renderfarm.services import tasks as task_service

    deadline = time.monotonic() + timeout_s
    left = list(tasks)
    while left:
        state = task_service.get_task(farm, LOCAL_OWNER, left[-1]).state
        if state in TASK_ENDED:
            if state is not TaskState.COMPLETED:
                raise SystemExit(f"a task ended as {state}: see the farm's log")
            left.pop()
        elif time.monotonic() > deadline:
            raise SystemExit(f"{len(left)} tasks have not ended within {timeout_s:.0f} s")
        else:
            time.sleep(0.05)


def _submit(farm: Any, asset_id: str, load: Load, rate_per_s: float | None = None) -> list[str]:
    from renderfarm.auth import LOCAL_OWNER
    from renderfarm.domain.render_settings import RenderSettings
    from renderfarm.services.tasks import submit_task

    settings = RenderSettings(frames=f"1-{load.frames}")
    began_s = time.monotonic()
    submitted: list[str] = []
    for number in range(load.tasks):
        if rate_per_s is not None:
            time.sleep(max(0.0, began_s + number / rate_per_s - time.monotonic()))
        task = submit_task(farm, LOCAL_OWNER, asset_id=asset_id, settings=settings, name=None, priority=50)
        submitted.append(task.id)
    return submitted


def _measure(farm: Any, url: str, asset_id: str, load: Load, rate_per_s: float | None = None) -> Measured:
    tasks = _submit(farm, asset_id, load, rate_per_s)
    _settle(tasks, farm, 600.0)
    with mysql(url, urlsplit(url).path.strip("/")) as connection, connection.cursor() as cursor:
        marks = ",".join(["%s"] * len(tasks))
        cursor.execute(
            "SELECT t.created_at, a.started_at, a.finished_at FROM tasks t JOIN units u ON u.task_id = t.id"
            f" JOIN attempts a ON a.unit_id = u.id AND a.number = u.attempt WHERE t.id IN ({marks})",
            tasks,
        )
        rows = cursor.fetchall()
    if len(rows) != load.units:
        raise SystemExit(f"{len(rows)} units instead of {load.units}")
    span_s = max(row[2] for row in rows) - min(row[0] for row in rows)
    return Measured(
        units_per_s=load.units / span_s,
        latencies_s=tuple(row[2] - row[0] for row in rows),
        attempts_s=tuple(row[2] - row[1] for row in rows),
    )


def _cpu_seconds() -> dict[str, float]:
    """Return the processor time that each part has used so far."""
    parts = {"SchedulerActor": "scheduler", "WorkerActor": "workers", "mariadbd": "database", "mysqld": "database"}
    used: dict[str, float] = {}
    for process in psutil.process_iter(["cmdline"]):
        for mark, part in parts.items():
            if mark in " ".join(process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    used[part] = used.get(part, 0.0) + sum(process.cpu_times()[:2])
    return used


def _memory() -> dict[str, int]:
    """Return the proportional set size of the farm's own processes, in bytes."""
    sizes: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            name = " ".join(process.cmdline())[:40]
            if "SchedulerActor" in name or "Worker" in name:
                sizes[f"{name} {process.pid}"] = process.memory_full_info().pss
    return sizes


# --- what it is compared with --------------------------------------------------------------------------------


def _updates_per_s(url: str) -> float:
    """Single-row conditional updates, a transaction each, one after the other."""
    with mysql(url, urlsplit(url).path.strip("/")) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE floor_updates (id INT PRIMARY KEY, state INT NOT NULL)")
        cursor.executemany("INSERT INTO floor_updates VALUES (%s, 0)", range(1000))
        began_s, done = time.perf_counter(), 0
        while time.perf_counter() - began_s < _FLOOR_SECONDS:
            cursor.execute(
                "UPDATE floor_updates SET state = state + 1 WHERE id = %s AND state = %s", (done % 1000, done // 1000)
            )
            done += 1
        elapsed_s = time.perf_counter() - began_s
        cursor.execute("DROP TABLE floor_updates")
        return done / elapsed_s


def _publishes_per_s(amqp_url: str) -> float:
    """Confirmed publishes to a quorum queue, one after the other."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    name = f"renderfarm-bench-{os.getpid()}"
    try:
        channel = connection.channel()
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        began_s, done = time.perf_counter(), 0
        while time.perf_counter() - began_s < _FLOOR_SECONDS:
            channel.basic_publish("", name, b"x" * 60, pika.BasicProperties(delivery_mode=2), mandatory=True)
            done += 1
        elapsed_s = time.perf_counter() - began_s
        channel.queue_delete(name)
        return done / elapsed_s
    finally:
        connection.close()


def _celery_tasks_per_s(amqp_url: str, redis_url: str, processes: int) -> float:
    """No-op tasks through Celery: late acknowledgements, results in Redis, published and awaited by this process."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "BENCH_AMQP_URL": amqp_url,
        "BENCH_REDIS_URL": redis_url,
        "BENCH_QUEUE": f"renderfarm-celery-{os.getpid()}",
    }
    os.environ.update(environment)
    argv = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_app", "worker", "--concurrency", str(processes)]
    argv += ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            from benchmarks.celery_app import app, no_op

            warm = [no_op.delay() for _ in range(100)]
            for result in warm:
                result.get(timeout=60)
            began_s = time.perf_counter()
            results = [no_op.delay() for _ in range(_CELERY_TASKS)]
            for result in results:
                result.get(timeout=60)
            elapsed_s = time.perf_counter() - began_s
            with app.connection() as connection:
                connection.default_channel.queue_delete(environment["BENCH_QUEUE"])
            return _CELERY_TASKS / elapsed_s
        finally:
            worker.terminate()
            worker.wait(30)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Make the farm's data folder, in memory where that can be: a node's disk is not what is measured."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="renderfarm-bench-", dir=memory if memory.is_dir() else None)


# --- the run -------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    name = f"renderfarm_bench_{os.getpid()}"
    with bench_database(options.mysql, name) as url, _scratch() as folder:
        floors = {
            "updates_per_s": _updates_per_s(url),
            "publishes_per_s": _publishes_per_s(options.amqp),
            "celery_tasks_per_s": _celery_tasks_per_s(options.amqp, options.redis, options.workers),
        }
        settings = Settings(
            data=Path(folder),
            name=name.replace("_", "-"),
            database_url=url,
            amqp_url=options.amqp,
            redis_url=options.redis,
            workers=options.workers,
        )
        with nothing_left_behind(options.amqp, options.redis, settings.name), local_ray(options.workers):
            from benchmarks.noop_farm import noop_farm

            with noop_farm(settings) as (farm, asset_id):
                console.print("warming up …")
                _measure(farm, url, asset_id, Load(tasks=20, frames=options.frames))
                console.print("saturated …")
                before = _cpu_seconds()
                rounds = [
                    _measure(farm, url, asset_id, Load(tasks=options.tasks, frames=options.frames))
                    for _ in range(options.rounds)
                ]
                units = options.rounds * options.tasks * options.frames
                cpu_ms = {part: 1000 * (used - before[part]) / units for part, used in _cpu_seconds().items()}
                memory = _memory()
                console.print("paced …")
                paced = _measure(farm, url, asset_id, Load(tasks=400, frames=5), rate_per_s=40.0)
    latencies = sorted(paced.latencies_s)
    return {
        "lifecycles_per_s": statistics.median(one.units_per_s for one in rounds),
        "lifecycles_per_s_rounds": [one.units_per_s for one in rounds],
        **floors,
        "paced_units_per_s": 200.0,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "saturated_attempt_p99_ms": 1000 * sorted(rounds[-1].attempts_s)[int(len(rounds[-1].attempts_s) * 0.99)],
        "cpu_ms_per_unit": cpu_ms,
        "memory_bytes": memory,
    }


def _show(console: Console, result: dict[str, Any]) -> None:
    rate = result["lifecycles_per_s"]
    table = Table(title="Unit lifecycles on this machine")
    for column in ("what", "per second", "lifecycles are"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("unit lifecycles (submitted, leased, running, committed)", f"{rate:.0f}", "")
    for key, what in (
        ("updates_per_s", "floor: single conditional updates"),
        ("publishes_per_s", "floor: confirmed publishes"),
        ("celery_tasks_per_s", "Celery: no-op tasks, late acks"),
    ):
        table.add_row(what, f"{result[key]:.0f}", f"{rate / result[key]:.2f} ×")
    console.print(table)
    console.print(
        f"At {result['paced_units_per_s']:.0f} units/s, from submission to commit: "
        f"p50 {result['p50_ms']:.0f} ms, p99 {result['p99_ms']:.0f} ms. "
        f"Saturated, from lease to commit: p99 {result['saturated_attempt_p99_ms']:.0f} ms."
    )
    shares = ", ".join(f"{part} {used:.2f} ms" for part, used in result["cpu_ms_per_unit"].items())
    console.print(f"Processor time of a unit: {shares}")
    for process, size_bytes in result["memory_bytes"].items():
        console.print(f"{process}: {size_bytes / 2**20:.0f} MiB")


def main() -> None:
    """Run the benchmark."""
    parser = service_parser(__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=200, help="in a round")
    parser.add_argument("--frames", type=int, default=100, help="units of each task")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    result = _run(options, console)
    _show(console, result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
