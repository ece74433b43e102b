"""What a worker that died has left on its node: a Blender, perhaps, and Blender's output."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from renderfarm.ports import Farm
from renderfarm.services.results import attach_log

log = logging.getLogger(__name__)

_SESSION_FILE = "session.json"
_KILL_WAIT_S = 10.0


def remember_session(folder: Path, pid: int) -> None:
    """Write down which Blender belongs to this slot; the start time tells it from a later process of that id."""
    try:
        record = {"pid": pid, "started_at": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return  # it has ended already, which its next request will tell
    partial = folder / f"{_SESSION_FILE}.partial"
    partial.write_text(json.dumps(record))
    partial.replace(folder / _SESSION_FILE)


def sweep_leftovers(farm: Farm, folder: Path) -> None:
    """Kill the slot's former Blender if it still lives, keep its output, and remove its files.

    Whatever goes wrong is logged only: a slot that starts on an untidy node is better than none.
    """
    with _going_on("end the former Blender"):
        _kill_session(folder / _SESSION_FILE)
    for log_path in folder.glob("*-*/blender.log"):
        with _going_on(f"keep {log_path}"):
            unit_id, _, attempt = log_path.parent.name.rpartition("-")
            attach_log(farm, unit_id, int(attempt), farm.objects.put(log_path))
    shutil.rmtree(folder, ignore_errors=True)
    with _going_on(f"make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _going_on(what: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception("could not %s", what)


def _kill_session(record_path: Path) -> None:
    if not record_path.exists():
        return
    record = json.loads(record_path.read_text())
    try:
        process = psutil.Process(record["pid"])
        if process.create_time() == record["started_at"]:
            log.warning("killing Blender %s, left behind by this slot's former worker", process.pid)
            process.kill()
            process.wait(_KILL_WAIT_S)
    except psutil.NoSuchProcess:
        return  # as it should be
