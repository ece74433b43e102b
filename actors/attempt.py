"""One attempt of one unit on this worker, from its lease to its end in the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from actors.blender_session import FrameDone, Progress, SessionCancelled, SessionFailed
from actors.session_watch import system_failure
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Beat, Lease, RenderedFile
from renderfarm.domain.models import Asset, Unit, UnitKind
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.errors import FarmUnavailable, LeaseLost, NotFound, StorageFull
from renderfarm.ports import Farm
from renderfarm.services import results
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
        self._worker = worker
        self._folder = worker.folder / f"{lease.unit_id}-{lease.attempt}"
        self.log_path = self._folder / "blender.log"
        self._output_dir = self._folder / "output"
        self._progress = Progress(frame=0, fraction=0.0, note="preparing", memory_bytes=0)
        self._frames_left = 0
        self.frames_rendered = 0
        self.render_seconds = 0.0
        self._peak_memory_bytes = 0
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
        except (StorageFull, FarmUnavailable, NotFound) as error:
            return Failure(kind=FailureKind.STORAGE, message=str(error))
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
        if assignment.unit.kind is UnitKind.INSPECT:
            facts = await self._inspect(assignment)
            await self._worker.insist(results.commit_inspection, self.lease, facts, await self._full_report())
            return
        if not assignment.frames:
            await self._worker.insist(results.finish, self.lease)
            return
        try:
            await self._render(assignment)
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

    async def _inspect(self, assignment: Assignment) -> SceneFacts:
        timeout_s = self._worker.farm.settings.open_timeout_s
        scene_path = await self._prepare(assignment.asset)
        async with self._worker.turn(self):
            session = await self._worker.session(assignment.unit.blender, self.log_path)
            facts = await session.inspect(scene_path, log_path=self.log_path, open_timeout_s=timeout_s)
            self._peak_memory_bytes = session.peak_memory_bytes
        return facts

    async def _render(self, assignment: Assignment) -> None:
        if assignment.task is None:
            raise LookupError(f"render unit {assignment.unit.id} has no task")
        asked, settings = assignment.task.settings, self._worker.farm.settings
        self._frames_left = len(assignment.frames)
        scene_path = await self._prepare(assignment.asset)
        async with self._worker.turn(self):
            session = await self._worker.session(assignment.unit.blender, self.log_path)
            await session.render(
                script=generate_script(unit_spec(assignment.task, assignment.unit, assignment.asset)),
                scene_path=scene_path,
                output_dir=self._output_dir,
                frames=assignment.frames,
                log_path=self.log_path,
                open_timeout_s=settings.open_timeout_s,
                frame_timeout_s=asked.frame_timeout_s or settings.frame_timeout_s,
                no_progress_timeout_s=asked.no_progress_timeout_s or settings.no_progress_timeout_s,
                on_progress=self._note_progress,
                on_frame=partial(self._take_frame, assignment.unit),
            )

    async def _prepare(self, asset: Asset) -> Path:
        """Make the attempt's folder and fetch the scene, while another attempt may render; return the scene's path."""
        prepared = await self._worker.preparing.ask((asset, self._folder))
        if isinstance(prepared, Exception):
            raise prepared
        self.asset_id = asset.id
        return prepared

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._peak_memory_bytes = max(self._peak_memory_bytes, progress.memory_bytes)

    async def _take_frame(self, unit: Unit, done: FrameDone) -> None:
        """Commit a frame while the next one renders."""
        self.frames_rendered += 1
        self.render_seconds += done.render_seconds
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
            files, digest = await worker.insist(self._store_all, paths)
            self._frames_left, report = 0, self._report(digest)
        else:
            files = await worker.insist(worker.store, paths, self._output_dir)
            self._frames_left -= 1
            report = results.NO_REPORT if self._frames_left > 0 else await self._full_report()
        committed = await worker.commits.ask(
            FrameCommit(
                lease=self.lease,
                unit=unit,
                frame=done.frame,
                files=files,
                render_seconds=done.render_seconds,
                report=report,
            )
        )
        if committed is None:
            raise LeaseLost(f"unit {self.lease.unit_id} has moved on from attempt {self.lease.attempt}")
        self._publishing.append(worker.publishing.submit(committed))

    async def _write_failure(self, failure: Failure) -> None:
        try:
            await self._worker.insist(results.fail, self.lease, failure, await self._full_report())
        except (FarmUnavailable, StorageFull) as error:
            log.error(
                "unit %s failed (%s), which cannot be written down, so its lease will expire: %s",
                self.lease.unit_id,
                failure.message,
                error,
            )

    def _store_all(self, farm: Farm, paths: Sequence[Path]) -> tuple[tuple[RenderedFile, ...], str | None]:
        """Store the last frame's files and Blender's output."""
        return self._worker.store(farm, paths, self._output_dir), self._store_log()

    async def _full_report(self) -> AttemptReport:
        """Store Blender's output, and return what goes with the attempt's last write."""
        self._ending = True
        return self._report(await asyncio.to_thread(self._store_log))

    def _report(self, log_digest: str | None) -> AttemptReport:
        self._ending = True
        return AttemptReport(log_digest=log_digest, peak_memory_bytes=self._peak_memory_bytes or None)

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
