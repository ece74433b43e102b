"""A real farm in a process of its own: Ray, actors, HTTP API, Blender."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from renderfarm.client import FarmClient

#: Ray and Serve start in about 15 s on two idle cores.
START_TIMEOUT_S = 120
ENDED = ("completed", "failed", "cancelled")


class FarmProcess:
    """Starts ``python -m serve_app``; knows the processes below it."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self._client: FarmClient | None = None
        self._errors = (data / "stderr.txt").open("ab")
        environment = os.environ | {f"RENDERFARM_{name.upper()}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serve_app", "--data", str(data), "--port", "0", "--stop-on-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment | {"RENDERFARM_RUNTIME": str(data / "runtime")},
        )
        assert self.process.stdout is not None
        word = json.loads(self.process.stdout.readline() or '{"event": "died"}')
        if word["event"] != "ready":
            self.stop()
            raise RuntimeError(f"the farm did not start: {word}\n{(data / 'logs' / 'farm.log').read_text()[-3000:]}")
        self._client = FarmClient(word["url"])
        self.url: str = word["url"]

    @property
    def client(self) -> FarmClient:
        assert self._client is not None
        return self._client

    def processes(self, part: str) -> list[psutil.Process]:
        """Return the farm's processes whose command line contains ``part``."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if part in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def blenders(self) -> list[psutil.Process]:
        return self.processes("blender_runtime/session.py")

    def stop(self) -> None:
        """Let the farm end by itself, as it does when its command line has gone."""
        if self._client is not None:
            self._client.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    # --- what tests say often ----------------------------------------------------------------------------------

    def upload(self, scene: Path) -> str:
        asset_id: str = self.client.upload_asset(scene)["id"]
        return asset_id

    def submit(self, scene: Path, **settings: Any) -> str:
        task_id: str = self.client.submit_task(self.upload(scene), settings)["id"]
        return task_id

    def finish(self, task_id: str, timeout_s: float = 120) -> dict[str, Any]:
        """Wait for the task's end and return its status."""
        status: dict[str, Any] = self.until(lambda: self._ended(task_id), f"the end of task {task_id}", timeout_s)
        return status

    def _ended(self, task_id: str) -> dict[str, Any] | None:
        status: dict[str, Any] = self.client.get_status(task_id)
        return status if status["status"] in ENDED else None

    def until(self, look: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
        """Look again and again until ``look`` returns something true."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if seen := look():
                return seen
            time.sleep(0.05)
        raise AssertionError(f"waited {timeout_s} s in vain for {what}")

    def log(self, task_id: str) -> list[dict[str, Any]]:
        return list(self.client.iterate_log(task_id))

    def frames_committed(self, task_id: str) -> list[str]:
        """Return the output names of every commit, in order of time."""
        return [entry["new"] for entry in self.log(task_id) if entry["event"] == "frame.committed"]

    def assert_every_frame_once(self, task_id: str, names: list[str]) -> None:
        outputs = list(self.client.iterate_outputs(task_id))
        assert sorted(output["name"] for output in outputs) == sorted(names)
        assert sorted(self.frames_committed(task_id)) == sorted(names)
        for name in names:
            assert (self.data / "objects" / "outputs" / task_id / name).stat().st_size > 0
