"""One attempt of one unit on this worker, from its lease to its end in the database."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import assembling
from actors.blender_session import SessionCancelled, SessionFailed
from actors.looking import Looking
from actors.session_watch import system_failure
from blender_runtime import protocol
from blender_runtime.protocol import FrameDone, Opened, Progress
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Beat, Lease, RenderedFile
from renderfarm.domain.models import Asset, Task, Unit, UnitKind
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.domain.verification import saving_min
from renderfarm.errors import BadPicture, FarmUnavailable, InvalidSettings, LeaseLost, NotFound, StorageFull
from renderfarm.ports import Farm
from renderfarm.services import dependencies, failing, judging, movies, results, retries, verification
from renderfarm.services.results import Assignment, FrameCommit
from renderfarm.services.unit_script import generate_script

if TYPE_CHECKING:
    from actors.worker import Worker

log = logging.getLogger(__name__)


class AttemptRun:
    """Fetches the inputs, drives the session, commits each frame as it comes."""

    def __init__(self, worker: Worker, lease: Lease) -> None:
        self.lease = lease
        self.asset_id: str | None = None
        self.has_begun = False
        """It has, or had, its turn at the session."""
        self.turn_ended_s: float | None = None
        """On the clock of ``time.monotonic``."""
        self.request: protocol.Render | None = None
        """What it is going to ask of the session, once that is known."""
        self.blender_version: str | None = None
        """Of the session that it needs."""
        self._worker = worker
        self._folder = worker.folder / f"{lease.unit_id}-{lease.attempt}"
        self.log_path = self._folder / "blender.log"
        self._output_dir = self._folder / "output"
        self._progress = Progress(frame=0, fraction=0.0, note="preparing", memory_bytes=0)
        self._frames_left = 0
        self.frames_rendered = 0
        self.render_seconds = 0.0
        self.preparation_seconds: float | None = None
        self.open_seconds: float | None = None
        self.peak_memory_bytes = 0
        self._devices: dict[str, None] = {}
        """What its frames were rendered on, in the order in which that was seen."""
        self.kind: UnitKind | None = None
        """Of its unit; None: not known yet."""
        self._looking: Looking | None = None
        self._working: asyncio.Task[None] | None = None
        self._stopped = False
        self._ending = False
        """The last write is under way: that the lease is gone afterwards is as it should be."""
        self._commits: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Future[None]] = []
        self.ended = asyncio.Event()

    def stop(self) -> None:
        """End the attempt now, in whatever phase it is; nothing of it is wanted any more.

        Once the work is done there is nothing to stop: the last write is fenced, and the session stays warm.
        """
        if self._ending or self._stopped:
            return
        self._stopped = True
        if self._working is not None:
            self._working.cancel()  # a session at work, or at its start, is killed by that

    def beat(self) -> Beat:
        """Return a sign of life."""
        return Beat(lease=self.lease, progress=self._progress.fraction, note=self._progress.note)

    async def to_the_end(self) -> Failure | None:
        """Run the attempt; return how it failed, if it did and anybody wants to know."""
        self._working = asyncio.create_task(self._work())
        try:
            failure = await self._result(self._working)
            if failure is not None:
                await self._write_failure(failure)
            return failure
        except (LeaseLost, SessionCancelled) as reason:
            log.info("attempt %s of unit %s is not wanted any more: %s", self.lease.attempt, self.lease.unit_id, reason)
            await self._keep_log()
            return None
        finally:
            for commit in self._commits:
                commit.cancel()
            await asyncio.gather(*self._commits, *self._publishing, return_exceptions=True)
            await self._worker.clearing.ask(self._folder)
            self.ended.set()

    async def _result(self, working: asyncio.Task[None]) -> Failure | None:
        """Wait for the work; return why it did not succeed."""
        try:
            await working
        except SessionFailed as error:
            return error.failure
        except (StorageFull, FarmUnavailable, NotFound, BadPicture, InvalidSettings) as error:
            kind = FailureKind.SCRIPT_ERROR if isinstance(error, InvalidSettings) else FailureKind.STORAGE
            return Failure(kind=kind, message=str(error))
        except (LeaseLost, SessionCancelled):
            raise
        except asyncio.CancelledError:
            if self._stopped:
                raise SessionCancelled("it was stopped") from None
            raise
        except OSError as error:
            log.exception("attempt %s of unit %s failed", self.lease.attempt, self.lease.unit_id)
            return system_failure(f"{self._worker.worker_id} cannot keep its files", error)
        except Exception as error:  # a bug of ours must end as a failed attempt that says so, not as a lost one
            log.exception("attempt %s of unit %s failed", self.lease.attempt, self.lease.unit_id)
            self._worker.kill_session()
            return Failure(kind=FailureKind.CRASH, message=f"internal error: {type(error).__name__}: {error}")
        return None

    async def _work(self) -> None:
        """Do what the lease is about, and commit it."""
        assignment = await self._worker.begins.ask(self.lease)
        if assignment is None:
            raise LeaseLost(f"unit {self.lease.unit_id} has moved on before it began")
        self.kind = assignment.unit.kind
        self._looking = Looking(self._worker.farm.settings, assignment)
        work = {
            UnitKind.INSPECT: self._inspect,
            UnitKind.VERIFY: self._verify,
            UnitKind.JUDGE: self._judge,
            UnitKind.ENCODE: self._encode,
        }.get(assignment.unit.kind, self._make_frames)
        await work(assignment)

    async def _make_frames(self, assignment: Assignment) -> None:
        """Render what is left of the unit's frames, or merge its frame."""
        if not assignment.frames:
            await self._worker.insist(results.finish, self.lease)
            return
        self._frames_left = len(assignment.frames)
        try:
            if assignment.unit.kind is UnitKind.MERGE:
                await self._merge(assignment)
            else:
                await self._render(assignment, partial(self._take_frame, assignment.unit))
            await asyncio.gather(*self._commits)
        except SessionFailed:
            await asyncio.gather(*self._commits)  # what was rendered before is done
            raise
        except asyncio.CancelledError:
            failed = [commit for commit in self._commits if commit.done() and not commit.cancelled()]
            error = next((error for commit in failed if (error := commit.exception()) is not None), None)
            if error is None or self._stopped:
                raise
            raise error from None

    async def _inspect(self, assignment: Assignment) -> None:
        timeout_s = self._worker.farm.settings.open_timeout_s
        scene_path = await self._prepare(assignment.asset)
        async with self._worker.turn(self):
            session = await self._worker.session(assignment.unit.blender, self.log_path)
            facts = await session.inspect(scene_path, log_path=self.log_path, open_timeout_s=timeout_s)
            self.peak_memory_bytes = session.peak_memory_bytes
        await self._worker.insist(results.commit_inspection, self.lease, facts, await self._full_report())

    async def _verify(self, assignment: Assignment) -> None:
        """Render a warm frame once more, cold, and compare."""
        unit, worker = assignment.unit, self._worker
        compared = await worker.insist(verification.reference, unit)
        difference = None
        if compared:
            await self._render(assignment, self._note_frame)
            difference = await worker.insist(verification.compare, unit, compared, self._output_dir, self._folder)
        report = await self._full_report()
        await worker.insist(verification.commit_verification, self.lease, compared, difference, report)

    async def _judge(self, assignment: Assignment) -> None:
        """Compare the task's frames with their neighbours."""
        outliers = await self._worker.insist(judging.find_outliers, assignment.unit)
        report = await self._full_report()
        await self._worker.insist(judging.commit_judgement, self.lease, outliers, report)

    async def _encode(self, assignment: Assignment) -> None:
        """Make a movie of frames that are there."""
        worker, unit, task = self._worker, assignment.unit, _present(assignment.task, assignment.unit)
        await self._prepare(assignment.asset)
        frames = await worker.insist(movies.frames_of, unit)
        async with worker.turn(self):
            stopped = threading.Event()
            try:
                path = await worker.blocking(assembling.encode, task, assignment.asset, frames, self._folder, stopped)
            finally:
                stopped.set()  # a thread cannot be cancelled: it ends before its next frame
        [file] = await worker.insist(worker.store, [path], path.parent)
        report = await self._full_report()
        movie = await worker.insist(movies.commit_movie, self.lease, frames, file, report)
        self._publishing.append(worker.publishing.submit([movie]))

    async def _merge(self, assignment: Assignment) -> None:
        """Put a frame's parts together, and let Blender make of them what it would have made of the whole frame."""
        worker, unit, task = self._worker, assignment.unit, _present(assignment.task, assignment.unit)
        scene_path = await self._prepare(assignment.asset)
        parts = await worker.insist(dependencies.parts_of, unit)
        warm = any(part.output.warm for part in parts)
        async with worker.turn(self):
            merged = await worker.insist(assembling.merge, task, assignment.asset, parts, self._folder)
            session = await worker.session(unit.blender, self.log_path)
            request = protocol.Merge(
                frame=unit.frames[0], merged_path=str(merged), **self._orders(assignment, task, scene_path)
            )
            done = await session.merge(request, on_progress=self._note_progress, **self._limits(task))
        await self._take_frame(unit, replace(done, warm=warm))

    async def _note_frame(self, done: FrameDone) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, done.memory_bytes)
        self._devices.update(dict.fromkeys(done.devices))

    async def _render(self, assignment: Assignment, on_frame: Callable[[FrameDone], Awaitable[None]]) -> None:
        task = _present(assignment.task, assignment.unit)
        scene_path = await self._prepare(assignment.asset)
        self.request = protocol.Render(
            frames=assignment.frames,
            fresh=assignment.unit.kind is UnitKind.VERIFY,
            saving_min=saving_min(task),
            **self._orders(assignment, task, scene_path),
        )
        self.blender_version = assignment.unit.blender
        async with self._worker.turn(self):
            session = await self._worker.session(self.blender_version, self.log_path)
            await session.render(
                self.request,
                on_begin=self._note_opened,
                on_progress=self._note_progress,
                on_frame=on_frame,
                **self._limits(task),
            )

    def _orders(self, assignment: Assignment, task: Task, scene_path: Path) -> dict[str, Any]:
        """Return what requests to render and to merge have in common."""
        return {
            "script": generate_script(unit_spec(task, assignment.unit, assignment.asset)),
            "scene_path": str(scene_path),
            "output_dir": str(self._output_dir),
            "log_path": str(self.log_path),
            "memory_max_bytes": self._worker.memory_bytes,
        }

    def _limits(self, task: Task) -> dict[str, float]:
        asked, settings = task.settings, self._worker.farm.settings
        return {
            "open_timeout_s": settings.open_timeout_s,
            "frame_timeout_s": asked.frame_timeout_s or settings.frame_timeout_s,
            "no_progress_timeout_s": asked.no_progress_timeout_s or settings.no_progress_timeout_s,
        }

    async def _prepare(self, asset: Asset) -> Path:
        """Make the attempt's folder and fetch the scene, while another attempt may render; return the scene's path."""
        prepared = await self._worker.preparing.ask((asset, self._folder))
        if isinstance(prepared, Exception):
            raise prepared
        self.asset_id = asset.id
        return prepared

    def _note_opened(self, opened: Opened) -> None:
        if not opened.reused:
            self.open_seconds = opened.open_seconds
        self._worker.send_ahead()

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress
        self.peak_memory_bytes = max(self.peak_memory_bytes, progress.memory_bytes)
        self._worker.send_ahead()

    async def _take_frame(self, unit: Unit, done: FrameDone) -> None:
        """Commit a frame while the next one renders."""
        await self._note_frame(done)
        if unit.kind is UnitKind.RENDER and unit.part is None:  # the rest tells nothing of how long frames take
            self.frames_rendered += 1
            self.render_seconds += done.render_seconds
            if not done.warm and done.preparation_seconds > 0:
                self.preparation_seconds = min(done.preparation_seconds, self.preparation_seconds or math.inf)
        commit = asyncio.create_task(self._commit(unit, done))
        commit.add_done_callback(self._note_commit)
        self._commits.append(commit)

    def _note_commit(self, commit: asyncio.Task[None]) -> None:
        """End the work whose frames cannot be committed."""
        if not commit.cancelled() and commit.exception() is not None and self._working is not None:
            self._working.cancel()

    async def _commit(self, unit: Unit, done: FrameDone) -> None:
        """Store a frame's files, then make them part of the task."""
        worker = self._worker
        paths = [Path(path) for path in done.files]
        if self._frames_left == 1:  # the only one that is left: its log goes with it
            is_more_to_come = worker.has_waiting(self.lease.task_id)
            is_short = await worker.company.wait(done.render_seconds, is_more_to_come=is_more_to_come)
            insist = worker.insist_together if is_short else worker.insist
            files, digest = await insist(self._store_all, paths)
            self._frames_left, report = 0, self._report(digest)
        else:
            files = await worker.insist(self._store, paths)
            self._frames_left -= 1
            report = results.NO_REPORT if self._frames_left > 0 else await self._full_report()
        committed = await worker.commits.ask(
            FrameCommit(
                lease=self.lease,
                unit=unit,
                frame=done.frame,
                files=files,
                render_seconds=done.render_seconds,
                warm=done.warm,
                devices=done.devices,
                report=report,
            )
        )
        if committed is None:
            raise LeaseLost(f"unit {self.lease.unit_id} has moved on from attempt {self.lease.attempt}")
        self._publishing.append(worker.publishing.submit(committed))

    async def _write_failure(self, failure: Failure) -> None:
        is_flawed_merge = self.kind is UnitKind.MERGE and failure.kind is FailureKind.FLAWED
        fail = retries.fail_flawed_merge if is_flawed_merge else failing.fail
        try:
            await self._worker.insist(fail, self.lease, failure, await self._full_report())
        except (FarmUnavailable, StorageFull) as error:
            log.error(
                "unit %s failed (%s), which cannot be written down, so its lease will expire: %s",
                self.lease.unit_id,
                failure.message,
                error,
            )

    def _store_all(self, farm: Farm, paths: Sequence[Path]) -> tuple[tuple[RenderedFile, ...], str | None]:
        """Store the last frame's files and Blender's output."""
        return self._store(farm, paths), self._store_log()

    def _store(self, farm: Farm, paths: Sequence[Path]) -> tuple[RenderedFile, ...]:
        """Look at a frame's files, and store them."""
        glances = self._looking.glances(paths, self._output_dir) if self._looking is not None else {}
        files = self._worker.store(farm, paths, self._output_dir)
        return tuple(replace(file, glance=glances.get(path)) for path, file in zip(paths, files, strict=True))

    async def _full_report(self) -> AttemptReport:
        """Store Blender's output, and return what goes with the attempt's last write."""
        self._ending = True
        return self._report(await asyncio.to_thread(self._store_log))

    def _report(self, log_digest: str | None) -> AttemptReport:
        self._ending = True
        return AttemptReport(
            log_digest=log_digest, peak_memory_bytes=self.peak_memory_bytes or None, devices=tuple(self._devices)
        )

    def _store_log(self) -> str | None:
        try:
            return self._worker.farm.objects.put(self.log_path) if self.log_path.exists() else None
        except (StorageFull, FarmUnavailable) as error:
            log.warning("Blender's output of unit %s is lost: %s", self.lease.unit_id, error)
            return None

    async def _keep_log(self) -> None:
        """Keep what Blender said although the result is not wanted."""
        digest = await asyncio.to_thread(self._store_log)
        if digest is None:
            return
        try:
            await self._worker.blocking(results.attach_log, self.lease.unit_id, self.lease.attempt, digest)
        except (StorageFull, FarmUnavailable) as error:
            log.warning("Blender's output of unit %s is lost: %s", self.lease.unit_id, error)


def _present(task: Task | None, unit: Unit) -> Task:
    if task is None:
        raise LookupError(f"unit {unit.id} has no task")
    return task
