"""The farm's process: starts Ray, the actors and the HTTP API on this machine, and takes them all down again.

``python -m serve_app [--data DIR] [--port N] [--alone] [--announce] [--stop-on-eof]``

Prints one line of JSON when the farm is ready, or when it cannot start. Everything else goes to ``DATA/logs``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from renderfarm.errors import RenderfarmError, without_prefix
from renderfarm.settings import Settings, prepare_ray_environment, without_services


def main() -> int:
    """Run a farm until it is told to stop. Returns the exit status."""
    options = _options()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        if options.stop_on_eof:
            threading.Thread(target=_stop_at_eof, args=(stop,), daemon=True).start()
        settings = _settings(options)
        _log_to(settings.data / "logs")
        prepare_ray_environment()
        # Imported late: Ray takes a second, reads the environment, and a wrong setting should be told at once.
        from serve_app.embedded import EmbeddedFarm, StoppedAtStart

        with contextlib.suppress(StoppedAtStart), EmbeddedFarm(settings, stop) as farm:
            _say({"event": "ready", "url": farm.url, "pid": farm.pid, "data": str(settings.data)})
            with farm.announced() if options.announce else farm.unannounced():
                stop.wait()
    except (RenderfarmError, ValidationError, OSError) as error:
        logging.getLogger(__name__).exception("the farm cannot run")
        _say({"event": "failed", "error": _one_line(error)})
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve_app", description="Run a render farm on this machine.")
    parser.add_argument("--data", type=Path, help="folder of everything the farm keeps")
    parser.add_argument("--port", type=int, help="port of the HTTP API; 0 takes a free one")
    parser.add_argument("--alone", action="store_true", help="use no services: everything is in the data folder")
    parser.add_argument("--announce", action="store_true", help="let the command line find this farm")
    parser.add_argument("--stop-on-eof", action="store_true", help="stop when standard input ends")
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {"data": options.data, "port": options.port}
    given = {name: value for name, value in given.items() if value is not None}
    return Settings(**given, **(without_services() if options.alone else {}))


def _log_to(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=folder / "farm.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _stop_at_eof(stop: threading.Event) -> None:
    # Not by sys.stdin, whose lock a thread that waits would hold when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1024):
        continue
    stop.set()


def _say(message: dict[str, Any]) -> None:
    # Whoever started the farm may be gone; that is told by the end of standard input.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _one_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {without_prefix(item['msg'])}" for item in error.errors())
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
