"""One attempt of one unit on this worker, from its lease to its end in the database."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actors.blender_session import FrameDone, Progress, SessionCancelled, SessionFailed
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Output, UnitKind
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.errors import FarmUnavailable, LeaseLost, NotFound, StorageFull
from renderfarm.services import outputs, results
from renderfarm.services.results import Assignment
from renderfarm.services.unit_script import generate_script

if TYPE_CHECKING:
    from actors.worker import Worker

log = logging.getLogger(__name__)


class AttemptRun:
    """Fetches the inputs, drives the session, commits each frame as it comes."""

    def __init__(self, worker: Worker, lease: Lease) -> None:
        self.lease = lease
        self.asset_id: str | None = None
        self._worker = worker
        self._folder = worker.folder / f"{lease.unit_id}-{lease.attempt}"
        self.log_path = self._folder / "blender.log"
        self._progress = Progress(frame=0, fraction=0.0, note="preparing", memory_bytes=0)
        self._frames_left = 0
        self._peak_memory_bytes = 0
        self._stopped = False
        self._ending = False
        """The last write is under way: that the lease is gone afterwards is as it should be."""
        self._publishing: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End the attempt now; nothing of it is wanted any more."""
        self._stopped = True
        self._worker.kill_session()

    async def to_the_end(self) -> Failure | None:
        """Run the attempt; return the failure that was written to the database, if any."""
        self._folder.mkdir(parents=True, exist_ok=True)
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            failure = await self._result()
            return None if failure is None else await self._write_failure(failure)
        except (LeaseLost, SessionCancelled) as reason:
            log.info("attempt %s of unit %s is not wanted any more: %s", self.lease.attempt, self.lease.unit_id, reason)
            await self._keep_log()
            return None
        finally:
            heartbeat.cancel()
            await asyncio.gather(*self._publishing)
            await asyncio.to_thread(shutil.rmtree, self._folder, True)

    async def _result(self) -> Failure | None:
        """Do the work and commit it; return why that did not succeed."""
        try:
            await self._work(await self._worker.blocking(results.begin, self.lease))
        except SessionFailed as error:
            return error.failure
        except (StorageFull, FarmUnavailable, NotFound) as error:
            self._worker.kill_session()
            return Failure(kind=FailureKind.STORAGE, message=str(error))
        except (LeaseLost, SessionCancelled):
            raise
        except Exception as error:  # a bug of ours must end as a failed attempt that says so, not as a lost one
            log.exception("attempt %s of unit %s failed", self.lease.attempt, self.lease.unit_id)
            self._worker.kill_session()
            return Failure(kind=FailureKind.CRASH, message=f"internal error: {type(error).__name__}: {error}")
        return None

    async def _work(self, assignment: Assignment) -> None:
        farm = self._worker.farm
        self.asset_id = assignment.asset.id
        scene_path = await asyncio.to_thread(self._worker.cache.fetch, assignment.asset, farm.clock())
        session = await self._worker.session(assignment.unit.blender, self.log_path)
        self._raise_if_stopped()
        if assignment.unit.kind is UnitKind.INSPECT:
            timeout_s = farm.settings.open_timeout_s
            facts = await session.inspect(scene_path, log_path=self.log_path, open_timeout_s=timeout_s)
            self._peak_memory_bytes = session.peak_memory_bytes
            await self._worker.blocking(results.commit_inspection, self.lease, facts, await self._report())
            return
        if assignment.task is None:
            raise LookupError(f"render unit {assignment.unit.id} has no task")
        asked = assignment.task.settings
        self._frames_left = len(assignment.frames)
        await session.render(
            script=generate_script(unit_spec(assignment.task, assignment.unit, assignment.asset)),
            scene_path=scene_path,
            output_dir=self._folder / "output",
            frames=assignment.frames,
            log_path=self.log_path,
            open_timeout_s=farm.settings.open_timeout_s,
            frame_timeout_s=asked.frame_timeout_s or farm.settings.frame_timeout_s,
            no_progress_timeout_s=asked.no_progress_timeout_s or farm.settings.no_progress_timeout_s,
            on_progress=self._note_progress,
            on_frame=self._commit,
        )

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._peak_memory_bytes = max(self._peak_memory_bytes, progress.memory_bytes)

    async def _commit(self, done: FrameDone) -> None:
        """Store a frame's files, then make them part of the task."""
        files = [await asyncio.to_thread(self._store, Path(path)) for path in done.files]
        self._frames_left -= 1
        arguments = (self.lease, done.frame, files, done.render_seconds)
        if self._frames_left > 0:
            committed = await self._worker.blocking(results.commit_frame, *arguments)
        else:
            committed = await self._worker.blocking(results.commit_frame, *arguments, await self._report())
        publishing = asyncio.create_task(self._publish(committed))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)

    async def _publish(self, committed: Sequence[Output]) -> None:
        try:
            await self._worker.blocking(outputs.publish_outputs, committed)
        except (StorageFull, FarmUnavailable) as error:
            # The frame is committed and safe; the scheduler publishes it later.
            log.warning("could not publish %s: %s", [output.name for output in committed], error)

    def _store(self, path: Path) -> RenderedFile:
        size_bytes = path.stat().st_size
        digest = self._worker.farm.objects.put(path)
        path.unlink()
        return RenderedFile(name=path.name, digest=digest, size_bytes=size_bytes)

    async def _write_failure(self, failure: Failure) -> Failure:
        await self._worker.blocking(results.fail, self.lease, failure, await self._report())
        return failure

    async def _report(self) -> AttemptReport:
        """Return what goes with the attempt's last write."""
        self._ending = True
        digest = await asyncio.to_thread(self._store_log)
        return AttemptReport(log_digest=digest, peak_memory_bytes=self._peak_memory_bytes or None)

    def _store_log(self) -> str | None:
        try:
            return self._worker.farm.objects.put(self.log_path) if self.log_path.exists() else None
        except (StorageFull, FarmUnavailable) as error:
            log.warning("Blender's output of unit %s is lost: %s", self.lease.unit_id, error)
            return None

    async def _keep_log(self) -> None:
        """Keep what Blender said although the result is not wanted."""
        digest = await asyncio.to_thread(self._store_log)
        if digest is not None:
            await self._worker.blocking(results.attach_log, self.lease.unit_id, self.lease.attempt, digest)

    async def _heartbeat(self) -> None:
        """Renew the lease and tell the progress; when the lease is lost, stop."""
        while True:
            await asyncio.sleep(self._worker.farm.settings.heartbeat_s)
            progress = self._progress
            try:
                await self._worker.blocking(results.renew, self.lease, progress.fraction, progress.note)
            except LeaseLost:
                if not self._ending:
                    self.stop()
                return
            except FarmUnavailable as error:
                log.warning("could not renew the lease of unit %s: %s", self.lease.unit_id, error)

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise SessionCancelled(f"attempt {self.lease.attempt} of unit {self.lease.unit_id} was stopped")
