"""What a task's status costs: requests per second of the status route against a route that does nothing.

``python benchmarks/status_api.py [--json FILE]`` starts Ray and Serve as the farm does, with MariaDB and Redis, and
beside the farm's API a bare FastAPI route in a deployment of the same options. A task is running, and changes a few
times a second. Both routes are asked in turn, round by round; then all of it again without Redis. In the meantime the
status is compared with the database: how far behind was the oldest that anybody was given?
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI
from redis import Redis
from rich.console import Console
from rich.table import Table

from renderfarm.ports import STATUS_AGE_MAX_S
from renderfarm.settings import Settings, prepare_ray_environment
from renderfarm.wiring import close_farm, prepare_farm
from tests.servers import mysql_database, redis_url
from tests.unit.fakes import FakeCompute
from tests.unit.services.story import Clock, Story

ROOT = Path(__file__).resolve().parent.parent
WORKERS = ("w1", "w2", "w3", "w4")
COMMIT_EVERY_S = 0.2
LOOK_EVERY_S = 0.05
WARM_UP_S = 3.0
FRAMES = "1-5000"

JSON = dict[str, Any]


class WallClock(Clock):
    """For a story that goes on by itself."""

    def __call__(self) -> float:
        return time.time()


# --- the farm ------------------------------------------------------------------------------------------------


class Bare:
    """A replica that does nothing but answer."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()

        @app.get("/")
        async def answer() -> dict[str, str]:
            return {"status": "ok"}

        return app


@contextmanager
def started(settings: Settings) -> Iterator[str]:
    """Start Ray, Serve, the farm's API and the bare route; yield the URL."""
    from ray import serve

    from serve_app import embedded
    from serve_app.deployment import OPTIONS

    with embedded._running_ray(settings), embedded._running_api(settings):
        bare = serve.deployment(name="bare", **OPTIONS)(serve.ingress()(Bare))
        serve.run(bare.bind(), name="bare", route_prefix="/bare")
        yield f"http://{settings.host}:{settings.port}"


@dataclass
class Busy:
    """A running task that changes a few times a second, and when it did."""

    story: Story
    task_id: str = ""
    committed_at: dict[int, float] = field(default_factory=dict)
    """For each revision of the task when it was in the database, by the monotonic clock."""

    def start(self) -> None:
        """Submit the task, and let some of its frames be in work."""
        self.task_id = self.story.admitted(frames=FRAMES).id
        self._leases = self.story.place(*WORKERS)

    def go_on(self, stop: threading.Event) -> None:
        """Commit frame after frame until told to stop."""
        while not stop.wait(COMMIT_EVERY_S):
            self.story.commit(self._leases.pop(0))
            self._leases += self.story.place(WORKERS[0])
            self.committed_at[self.story.task(self.task_id).revision] = time.monotonic()

    def age_s(self, revision: int, asked_at: float) -> float:
        """Return how long ``revision`` had been outdated when it was asked for and given."""
        later = [at for number, at in list(self.committed_at.items()) if number > revision]
        return max(0.0, asked_at - min(later, default=asked_at))


@contextmanager
def busy_task(settings: Settings) -> Iterator[Busy]:
    """Keep a task busy."""
    farm = prepare_farm(settings, FakeCompute())
    busy = Busy(Story(farm, WallClock()))
    busy.start()
    stop = threading.Event()
    thread = threading.Thread(target=busy.go_on, args=(stop,))
    thread.start()
    try:
        yield busy
    finally:
        stop.set()
        thread.join()
        close_farm(farm)


@dataclass
class Watcher:
    """Asks for the status now and then, and remembers the oldest."""

    url: str
    busy: Busy
    oldest_s: float = 0.0
    revisions: set[int] = field(default_factory=set)

    def watch(self, stop: threading.Event) -> None:
        with httpx2.Client(timeout=30) as client:
            while not stop.wait(LOOK_EVERY_S):
                asked_at = time.monotonic()
                revision = client.get(self.url).raise_for_status().json()["revision"]
                self.oldest_s = max(self.oldest_s, self.busy.age_s(revision, asked_at))
                self.revisions.add(revision)


@contextmanager
def watching(url: str, busy: Busy) -> Iterator[Watcher]:
    """Watch the status in the background."""
    stop = threading.Event()
    watcher = Watcher(url, busy)
    thread = threading.Thread(target=watcher.watch, args=(stop,))
    thread.start()
    try:
        yield watcher
    finally:
        stop.set()
        thread.join()


# --- the comparison ------------------------------------------------------------------------------------------


def load(url: str, seconds: float, connections: int) -> JSON:
    """Let another process ask for a while; return its figures."""
    command = [sys.executable, str(ROOT / "benchmarks" / "http_load.py"), url, str(seconds), str(connections)]
    figures: JSON = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if figures["lost"]:
        raise SystemExit(f"{url} closed {figures['lost']} connections")
    return figures


def compare(settings: Settings, options: argparse.Namespace, say: Console) -> JSON:
    """Ask both routes in turn."""
    with started(settings) as url, busy_task(settings) as busy:
        bare_url, status_url = f"{url}/bare/", f"{url}/api/tasks/{busy.task_id}/status"
        for each in (bare_url, status_url):
            httpx2.get(each, timeout=60).raise_for_status()
            load(each, WARM_UP_S, options.connections)
        bare: list[JSON] = []
        status: list[JSON] = []
        with watching(status_url, busy) as watcher:
            for number in range(1, options.rounds + 1):
                turns = [(bare_url, bare), (status_url, status)]
                # Who goes first changes, so that neither gains by what the machine does besides.
                for each, figures in turns if number % 2 else reversed(turns):
                    figures.append(load(each, options.seconds, options.connections))
                rates = f"{bare[-1]['requests_per_s']:.0f} and {status[-1]['requests_per_s']:.0f} requests/s"
                say.print(f"round {number} of {options.rounds}: bare and status, {rates}")
    if watcher.oldest_s > STATUS_AGE_MAX_S or len(watcher.revisions) < options.rounds:
        raise SystemExit(f"a status was {watcher.oldest_s:.2f} s old; {len(watcher.revisions)} revisions were seen")
    ratios = [mine["requests_per_s"] / its["requests_per_s"] for mine, its in zip(status, bare, strict=True)]
    return {
        "bare": medians(bare),
        "status": medians(status),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "oldest_status_s": watcher.oldest_s,
    }


def medians(rounds: list[JSON]) -> JSON:
    """Return the median of each figure."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def measure(options: argparse.Namespace, say: Console) -> JSON:
    """Compare with Redis and without; return the figures."""
    with tempfile.TemporaryDirectory(prefix="status-api-") as folder, ExitStack() as stack:
        stack.callback(_forget, options.redis_url)
        prepare_ray_environment()
        from serve_app.embedded import _free_port

        found = {}
        for name, url in (("with_redis", options.redis_url), ("without_redis", None)):
            say.print(name.replace("_", " ").capitalize())
            database_url = stack.enter_context(mysql_database(options.database_url))
            settings = Settings(
                data=Path(folder) / name,
                runtime=Path(folder) / "run",
                port=_free_port("127.0.0.1"),
                database_url=database_url,
                redis_url=url,
                amqp_url=None,
                storage_url=None,
            )
            found[name] = compare(settings, options, say)
    return {
        "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "rounds": options.rounds,
        "connections": options.connections,
        "status_vs_noop_ratio": found["with_redis"]["ratio"],
        "status_vs_noop_ratio_without_redis": found["without_redis"]["ratio"],
        **found,
    }


def _forget(url: str) -> None:
    """Remove what the farm has left in Redis."""
    with Redis.from_url(url) as redis:
        for key in redis.scan_iter("renderfarm:*"):
            redis.delete(key)


def table_of(figures: JSON) -> Table:
    """Show the figures to people."""
    title = f"{figures['rounds']} rounds, {figures['connections']} connections, medians"
    table = Table(title=title, title_justify="left")
    for name in ("", "requests/s", "p50", "p99", "status : bare", "oldest status"):
        table.add_column(name, justify="right" if name else "left")
    for name in ("with_redis", "without_redis"):
        part = figures[name]
        for route in ("bare", "status"):
            its = part[route]
            row = [f"{route}, {name.replace('_', ' ')}", f"{its['requests_per_s']:.0f}"]
            row += [f"{its['p50_ms']:.1f} ms", f"{its['p99_ms']:.1f} ms"]
            is_status = route == "status"
            more = [f"{part['ratio']:.2f}", f"{part['oldest_status_s']:.2f} s"] if is_status else ["1", ""]
            table.add_row(*row, *more, end_section=is_status)
    return table


def main() -> None:
    """Measure, print a table, and write the figures where ``--json`` says."""
    parser = argparse.ArgumentParser(description="The status route against a route that does nothing.")
    parser.add_argument("--database-url", help="a MySQL or MariaDB in which a database may be made")
    # The farm's keys are removed afterwards, so it must not be a farm's own Redis.
    parser.add_argument("--redis-url", default=redis_url().rstrip("/") + "/9", help="a Redis of no other farm")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each route in each round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    console = Console()
    figures = measure(options, console)
    console.print(table_of(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
