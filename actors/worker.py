"""A worker: one slot on one node, owner of one Blender session, in which one attempt runs at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import stamina

from actors.attempt import AttemptRun
from actors.batcher import Batcher
from actors.blender_session import BlenderSession, SessionFailed
from actors.blenders import Blender, find_blenders
from actors.company import Company
from actors.leftovers import remember_session, sweep_leftovers
from actors.messages import Outcome, Pulse, WorkerInfo
from actors.node_resources import node_resources
from actors.scene_cache import SceneCache
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import Lease, RenderedFile
from renderfarm.domain.models import Asset, Output, UnitKind
from renderfarm.domain.policy import AHEAD_MAX_S
from renderfarm.domain.states import AssetState
from renderfarm.errors import Conflict, FarmUnavailable, RenderfarmError
from renderfarm.ports import Farm
from renderfarm.services import failing, outputs, results
from renderfarm.services.results import Assignment, FrameCommit

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How long an attempt that is stopped, or is writing its last word, may take. The scheduler waits a little longer.
_STOP_WAIT_S = 5.0
#: For how many times ``lease_s`` a worker insists on writing. More than one, as a database may keep a writer waiting
#: for longer than a lease, and while nobody can write, nobody takes the lease away.
_PATIENCE_LEASES = 4
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0
#: Units are given ahead when they are known to be short; behind one that takes longer than those may, they do not wait.
_HAND_BACK_AFTER_S = AHEAD_MAX_S + 3.0
#: Enough to gain by it, and few enough that a store far away is sent several files at once.
_STEPS_PER_THREAD = 8
#: Of the node's memory, for all sessions; the rest is for the farm itself and for what a frame needs for a moment.
_SESSION_SHARE = 0.8


class Worker:
    """Runs in one event loop; whatever blocks goes to a thread, so that a ping is always answered."""

    def __init__(self, farm: Farm, worker_id: str, address: str, threads: int, workers: int = 1) -> None:
        self.farm = farm
        self.worker_id = worker_id
        self.threads = threads
        self._node = node_resources()
        self.memory_bytes = int(_SESSION_SHARE * self._node.memory_bytes / workers)
        """What its session may hold before it gives up what it keeps."""
        self.folder = farm.settings.data / "work" / worker_id
        self.cache = SceneCache(farm.settings.data / "cache", farm.objects, farm.settings.cache_max_bytes)
        self._address = address
        self._blenders = find_blenders(farm.settings.blender)
        self._session: BlenderSession | None = None
        self._session_blender: Blender | None = None
        self._runs: dict[Lease, AttemptRun] = {}
        self._assets: dict[str, Asset] = {}
        """What the latest units were about: the next are mostly about the same."""
        self._turn = asyncio.Lock()
        self._turn_began_s = 0.0
        self._line: list[AttemptRun] = []
        """Those who wait for their turn, in their order."""
        self._beating: asyncio.Task[None] | None = None
        self._open_scene: str | None = None
        self._stopping = False
        self.begins = Batcher(self._begin)
        self._together = Batcher(self._take_steps)
        self.commits = Batcher(self._commit)
        self.publishing = Batcher(self._publish)
        self.preparing = Batcher(self._prepare)
        self.clearing = Batcher(self._clear)
        self.company = Company()
        sweep_leftovers(farm, self.folder)

    async def describe(self) -> WorkerInfo:
        """Say what this worker is."""
        return WorkerInfo(
            node=socket.gethostname(),
            address=self._address,
            pid=os.getpid(),
            blender_versions=tuple(blender.version for blender in self._blenders),
            threads=self.threads,
            memory_bytes=self._node.memory_bytes,
            started_at=self.farm.clock(),
        )

    async def ping(self) -> Pulse:
        """Say what this worker does at the moment."""
        return Pulse(leases=tuple(self._runs), open_scene=self._open_scene)

    async def execute(self, leases: Sequence[Lease]) -> list[Outcome]:
        """Run attempts one after the other, each to its end, and write that end to the database.

        More may be given while others run. A frame is committed while the next one renders.

        Raises:
            Conflict: the worker has one of them already, or is about to end.
        """
        if self._stopping:
            raise Conflict(f"{self.worker_id} is stopping")
        if any(lease in self._runs for lease in leases):
            raise Conflict(f"{self.worker_id} has been given some of {len(leases)} units twice")
        runs = [AttemptRun(self, lease) for lease in leases]
        self._runs.update((run.lease, run) for run in runs)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        failures = await asyncio.gather(*(self._execute(run) for run in runs))
        return [self._outcome(run, failure) for run, failure in zip(runs, failures, strict=True)]

    async def _execute(self, run: AttemptRun) -> Failure | None:
        try:
            return await run.to_the_end()
        finally:
            del self._runs[run.lease]

    def _outcome(self, run: AttemptRun, failure: Failure | None) -> Outcome:
        return Outcome(
            lease=run.lease,
            failure=None if failure is None else failure.kind,
            open_scene=self._open_scene,
            asset_id=run.asset_id,
            frames=run.frames_rendered,
            render_seconds=run.render_seconds,
            preparation_seconds=run.preparation_seconds,
            open_seconds=run.open_seconds,
            peak_memory_bytes=run.peak_memory_bytes,
            since_turn_s=None if run.turn_ended_s is None else time.monotonic() - run.turn_ended_s,
        )

    def has_waiting(self, task_id: str | None) -> bool:
        """Tell whether it has been given more frames of a task than it has begun."""
        waiting = [run for run in self._runs.values() if not run.has_begun and run.lease.task_id == task_id]
        return any(run.kind in (None, UnitKind.RENDER, UnitKind.MERGE) for run in waiting)

    @asynccontextmanager
    async def turn(self, run: AttemptRun) -> AsyncIterator[None]:
        """Have the session to oneself; attempts come in the order in which they were given."""
        await self._stand_in_line(run)
        try:
            self._turn_began_s = time.monotonic()
            run.has_begun = True
            yield
        except SessionFailed as error:
            if error.failure.kind is FailureKind.DEVICE:
                self.kill_session()  # a GPU that has failed once is lost to the whole process
            raise
        finally:
            session = self._session
            is_warm = session is not None and session.alive and session.open_scene is not None
            self._open_scene = run.asset_id if is_warm else None
            run.turn_ended_s = time.monotonic()
            self._turn.release()

    async def _stand_in_line(self, run: AttemptRun) -> None:
        self._line.append(run)
        try:
            self.send_ahead()
            await self._turn.acquire()
        except asyncio.CancelledError:
            if self._session is not None and run.request is not None:
                self._session.withdraw(run.request)
            raise
        finally:
            self._line.remove(run)

    def send_ahead(self) -> None:
        """Let a Blender that renders have what comes next already: it waits for nobody between two short frames.

        Without it Blender waited for 8 ms instead of 4, for a worker that was storing the last one (two cores).
        """
        session, run = self._session, self._line[0] if self._line else None
        if session is None or run is None or run.request is None or not session.takes_ahead:
            return
        if self._session_blender is not None and self._session_blender.version == run.blender_version:
            session.send_ahead(run.request)

    async def cancel(self, leases: Sequence[Lease]) -> None:
        """Stop attempts now, as far as they still run. Their results are not wanted any more."""
        for lease in leases:
            if lease in self._runs:
                self._runs[lease].stop()

    async def read_log(
        self, unit_id: str, attempt: int, offset: int, limit: int, tail: int | None
    ) -> tuple[int, bytes] | None:
        """Read Blender's output of an attempt that runs; None if it does not."""
        for lease, run in self._runs.items():
            if (lease.unit_id, lease.attempt) == (unit_id, attempt):
                return await asyncio.to_thread(_read_slice, run.log_path, offset, limit, tail)
        return None

    async def stop(self) -> None:
        """Kill what runs, and end Blender. Attempts stay as they are in the database: their leases will expire."""
        self._stopping = True
        runs = list(self._runs.values())
        for run in runs:
            run.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WAIT_S):
                await asyncio.gather(*(run.ended.wait() for run in runs))
        self.kill_session()
        await self._close_session()

    # --- signs of life -----------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Renew the leases and tell the progress, for as long as there are any. Nothing ends the beat before."""
        while self._runs:
            await asyncio.sleep(self.farm.settings.heartbeat_s)
            runs = [run for run in self._runs.values() if not run.ended.is_set()]
            try:
                lost = await self.blocking(results.renew, [run.beat() for run in runs])
                await self._hand_back(runs)
            except RenderfarmError as error:
                log.warning("could not renew %s leases: %s", len(runs), error)
            except Exception:
                log.exception("could not renew %s leases", len(runs))
            else:
                await self.cancel(list(lost))
            self._touch_scenes(runs)
        self._beating = None

    async def _hand_back(self, runs: Sequence[AttemptRun]) -> None:
        """Let others have what waits behind a unit that takes longer than was expected."""
        waiting = [run for run in runs if not run.has_begun]
        if waiting and self._turn.locked() and time.monotonic() - self._turn_began_s > _HAND_BACK_AFTER_S:
            leases = [run.lease for run in waiting]
            reason = f"the unit before it on {self.worker_id} takes longer than was expected"
            await self.blocking(failing.hand_back, leases, reason)
            await self.cancel(leases)

    def _touch_scenes(self, runs: Sequence[AttemptRun]) -> None:
        for asset_id in {run.asset_id for run in runs if run.asset_id is not None}:
            self.cache.touch(asset_id, self.farm.clock())

    # --- for many attempts at once -----------------------------------------------------------------------------

    async def _begin(self, leases: Sequence[Lease]) -> list[Assignment | None]:
        assignments = await self.insist(results.begin, leases, self._assets)
        assets = {assignment.asset.id: assignment.asset for assignment in assignments.values()}
        self._assets = {asset_id: asset for asset_id, asset in assets.items() if asset.state is AssetState.READY}
        return [assignments.get(lease) for lease in leases]

    async def _commit(self, commits: Sequence[FrameCommit]) -> list[list[Output] | None]:
        return await self.insist(results.commit_frames, commits)

    async def _publish(self, batch: Sequence[Sequence[Output]]) -> list[None]:
        """Let frames appear. Whatever fails here, they are committed, and the scheduler publishes them later."""
        committed = [output for outputs_ in batch for output in outputs_]
        try:
            await self.blocking(outputs.publish_outputs, committed)
        except RenderfarmError as error:
            log.warning("could not publish %s outputs: %s", len(committed), error)
        except Exception:
            log.exception("could not publish %s outputs", len(committed))
        return [None] * len(batch)

    async def _prepare(self, wanted: Sequence[tuple[Asset, Path]]) -> list[Path | Exception]:
        return await asyncio.to_thread(_taken, [partial(self._prepare_one, asset, folder) for asset, folder in wanted])

    def _prepare_one(self, asset: Asset, folder: Path) -> Path:
        """Make an attempt's folder and have its scene here."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.cache.fetch(asset, self.farm.clock())

    async def _clear(self, folders: Sequence[Path]) -> list[None]:
        def clear() -> None:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

        await asyncio.to_thread(clear)
        return [None] * len(folders)

    @staticmethod
    def store(farm: Farm, paths: Sequence[Path], output_dir: Path) -> tuple[RenderedFile, ...]:
        """Put a frame's files into the object store. May be called again: the files go with the attempt's folder."""
        return tuple(
            RenderedFile(
                name=path.relative_to(output_dir).as_posix(),
                size_bytes=path.stat().st_size,
                digest=farm.objects.put(path, spare=True),
            )
            for path in paths
        )

    async def insist(self, step: Callable[..., T], *arguments: Any) -> T:
        """Call a function of the farm until it is available: a frame that took hours must not be thrown away.

        Raises:
            FarmUnavailable: for too long.
            LeaseLost: meanwhile the attempt was taken away.
        """
        try:
            return await self.blocking(step, *arguments)
        except FarmUnavailable as error:
            log.info("%s is tried again: %s", step.__name__, error)
        patience_s = _PATIENCE_LEASES * self.farm.settings.lease_s
        retry = stamina.AsyncRetryingCaller(
            attempts=None, timeout=patience_s, wait_initial=_RETRY_FIRST_S, wait_max=_RETRY_MAX_S, wait_jitter=0.1
        )
        return await retry(FarmUnavailable, self.blocking, step, *arguments)

    async def insist_together(self, step: Callable[..., T], *arguments: Any) -> T:
        """Do as ``insist`` does, but in few threads with all who come at the same time.

        One right after the other such steps take less of the processor: what they need is in its caches then, where a
        Blender that renders in between leaves nothing (looking at a small picture: 1.7 ms instead of 2.6, measured).
        """
        taken = await self._together.ask(partial(step, self.farm, *arguments))
        if isinstance(taken, FarmUnavailable):
            return await self.insist(step, *arguments)
        if isinstance(taken, Exception):
            raise taken
        return cast(T, taken)

    async def _take_steps(self, steps: Sequence[Callable[[], object]]) -> list[object]:
        runs = [steps[start : start + _STEPS_PER_THREAD] for start in range(0, len(steps), _STEPS_PER_THREAD)]
        taken = await asyncio.gather(*(asyncio.to_thread(_taken, run) for run in runs))
        return [result for run in taken for result in run]

    # --- the session -------------------------------------------------------------------------------------------

    async def session(self, version: str, log_path: Path) -> BlenderSession:
        """Return a living session of that Blender version: the warm one if it fits, else a new one.

        Raises:
            SessionFailed: this worker has no such Blender, or it does not start.
            OSError: the node's disk does not take what a session needs.
        """
        blender = self._blender(version)
        present = self._session
        if present is not None and present.alive and self._session_blender == blender and not present.wants_restart:
            return present
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


def _taken(steps: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Take steps. What goes wrong with one is not the others' trouble: it is returned."""
    results: list[T | Exception] = []
    for step in steps:
        try:
            results.append(step())
        except Exception as error:  # noqa: BLE001 - it is raised again in its attempt
            results.append(error)
    return results


def _read_slice(path: Path, offset: int, limit: int, tail: int | None) -> tuple[int, bytes]:
    if not path.exists():
        return 0, b""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = min(size, offset if tail is None else max(0, size - tail))
        stream.seek(start)
        return start, stream.read(limit)
