"""A worker: one slot on one node, owner of one Blender session. It runs one attempt at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from actors.attempt import AttemptRun
from actors.blender_session import BlenderSession, SessionFailed
from actors.blenders import Blender, find_blenders
from actors.leftovers import remember_session, sweep_leftovers
from actors.messages import Outcome, Pulse, WorkerInfo
from actors.scene_cache import SceneCache
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.errors import Conflict
from renderfarm.ports import Farm

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How long an attempt that is stopped, or is writing its last word, may take. The scheduler waits a little longer.
_STOP_WAIT_S = 5.0


class Worker:
    """Runs in one event loop; whatever blocks goes to a thread, so that a ping is always answered."""

    def __init__(self, farm: Farm, worker_id: str, address: str, threads: int) -> None:
        self.farm = farm
        self.worker_id = worker_id
        self.threads = threads
        self.folder = farm.settings.data / "work" / worker_id
        self.cache = SceneCache(farm.settings.data / "cache", farm.objects, farm.settings.cache_max_bytes)
        self._address = address
        self._blenders = find_blenders(farm.settings.blender)
        self._session: BlenderSession | None = None
        self._session_blender: Blender | None = None
        self._run: AttemptRun | None = None
        self._open_scene: str | None = None
        self._stopping = False
        sweep_leftovers(farm, self.folder)

    async def describe(self) -> WorkerInfo:
        """Say what this worker is."""
        return WorkerInfo(
            node=socket.gethostname(),
            address=self._address,
            pid=os.getpid(),
            blender_versions=tuple(blender.version for blender in self._blenders),
            threads=self.threads,
            memory_bytes=psutil.virtual_memory().total,
            started_at=self.farm.clock(),
        )

    async def ping(self) -> Pulse:
        """Say what this worker does at the moment."""
        return Pulse(lease=self._run.lease if self._run else None, open_scene=self._open_scene)

    async def execute(self, lease: Lease) -> Outcome:
        """Run one attempt to its end, and write that end to the database.

        Raises:
            Conflict: the worker is still busy with another attempt, or is about to end.
        """
        if self._stopping:
            raise Conflict(f"{self.worker_id} is stopping")
        if self._run is not None:
            raise Conflict(f"{self.worker_id} is busy with unit {self._run.lease.unit_id}")
        self._run = run = AttemptRun(self, lease)
        try:
            failure = await run.to_the_end()
        finally:
            self._run = None
        session = self._session
        if session is None or not session.alive or session.open_scene is None:
            self._open_scene = None
        else:
            self._open_scene = run.asset_id
        return Outcome(lease=lease, failure=None if failure is None else failure.kind, open_scene=self._open_scene)

    async def cancel(self, lease: Lease) -> None:
        """Stop an attempt now, if it is the one that runs. Its result is not wanted any more."""
        if self._run is not None and self._run.lease == lease:
            self._run.stop()

    async def read_log(
        self, unit_id: str, attempt: int, offset: int, limit: int, tail: int | None
    ) -> tuple[int, bytes] | None:
        """Read Blender's output of the attempt that runs; None if it is another one."""
        run = self._run
        if run is None or (run.lease.unit_id, run.lease.attempt) != (unit_id, attempt):
            return None
        return await asyncio.to_thread(_read_slice, run.log_path, offset, limit, tail)

    async def stop(self) -> None:
        """Kill what runs, and end Blender. The attempt stays as it is in the database: its lease will expire."""
        self._stopping = True
        if self._run is not None:
            self._run.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_WAIT_S):
                    await self._run.ended.wait()
        self.kill_session()
        await self._close_session()

    async def session(self, version: str, log_path: Path) -> BlenderSession:
        """Return a living session of that Blender version: the warm one if it fits, else a new one.

        Raises:
            SessionFailed: this worker has no such Blender, or it does not start.
            OSError: the node's disk does not take what a session needs.
        """
        blender = self._blender(version)
        if self._session is not None and self._session.alive and self._session_blender == blender:
            return self._session
        await self._close_session()
        session = await BlenderSession.start(
            blender,
            folder=self.folder / "session",
            log_path=log_path,
            start_timeout_s=self.farm.settings.start_timeout_s,
            threads=self.threads,
        )
        self._session, self._session_blender = session, blender
        try:
            remember_session(self.folder, session.pid)
        except OSError:
            session.kill()  # one that nobody would find again
            raise
        return session

    def _blender(self, version: str) -> Blender:
        for blender in self._blenders:
            if blender.version == version:
                return blender
        present = ", ".join(blender.version for blender in self._blenders)
        message = f"{self.worker_id} has no Blender {version}, only {present}"
        raise SessionFailed(Failure(kind=FailureKind.CRASH, message=message))

    async def _close_session(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def kill_session(self) -> None:
        """Kill Blender, whatever it does."""
        if self._session is not None:
            self._session.kill()

    async def blocking(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a service function in a thread."""
        return await asyncio.to_thread(function, self.farm, *arguments)


def _read_slice(path: Path, offset: int, limit: int, tail: int | None) -> tuple[int, bytes]:
    if not path.exists():
        return 0, b""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = min(size, offset if tail is None else max(0, size - tail))
        stream.seek(start)
        return start, stream.read(limit)
