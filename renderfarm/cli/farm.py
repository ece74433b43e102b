"""``renderfarm up`` and ``nodes``: the farm itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import say, show, show_json, show_table, size
from renderfarm.cli.farm_process import FarmProcess, announced_url, interruptible, require_farm, uninterrupted
from renderfarm.cli.fetching import check_writable
from renderfarm.cli.scenes import working
from renderfarm.client import FarmClient
from renderfarm.errors import Conflict, FarmUnavailable
from renderfarm.settings import Settings


def up(
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port of the HTTP API.")] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder of what the farm keeps.")] = None,
    as_json: options.Json = False,
) -> int:
    """Run a farm on this machine until Ctrl-C."""
    settings = Settings()
    running = announced_url(settings)
    if running is not None:
        raise Conflict(f"a farm already runs on this machine, at {running}")
    given = [*([] if port is None else ["--port", str(port)]), *([] if data is None else ["--data", str(data)])]
    folder = data or settings.data
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with interruptible(), ExitStack() as stack:
        try:
            with uninterrupted():
                farm = FarmProcess(["--announce", *given], folder / "stderr.log")
                stack.callback(farm.stop)
            _follow(farm, as_json=as_json)
        except KeyboardInterrupt:
            say("Stopping the farm…")
    return exit_codes.COMPLETED


def _follow(farm: FarmProcess, *, as_json: bool) -> NoReturn:
    """Tell where the farm is, and wait until it is interrupted or ends by itself."""
    with working("Starting the farm"):
        news = farm.wait_ready()
    if as_json:
        show_json(news)
    else:
        show(f"The farm is at {news['url']}, its API described at {news['url']}/docs, its data in {news['data']}")
        say("Ctrl-C stops it.")
    raise FarmUnavailable(f"the farm ended by itself, with status {farm.wait()}")


def nodes(as_json: options.Json = False) -> int:
    """List the farm's machines and their workers."""
    with FarmClient(require_farm(Settings())) as client:
        found = client.list_nodes()
    if as_json:
        show_json({"items": found})
        return exit_codes.COMPLETED
    show_table(
        ("node", "worker", "status", "blender", "threads", "gpus", "memory", "unit", "set aside"),
        (
            (
                f"{node['node']} ({node['address']})",
                worker["id"],
                worker["status"],
                ", ".join(worker["blender_versions"]) or None,
                worker["threads"],
                worker["gpus"],
                size(node["memory_bytes"]),
                worker["unit_id"],
                worker["set_aside_reason"],
            )
            for node in found
            for worker in node["workers"]
        ),
    )
    return exit_codes.COMPLETED
