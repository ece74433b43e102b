"""One attempt of one unit on this worker, from its lease to its end in the database."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import stamina

from actors.blender_session import BlenderSession, FrameDone, Progress, SessionCancelled, SessionFailed
from actors.session_watch import system_failure
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Output, UnitKind
from renderfarm.domain.unit_spec import unit_spec
from renderfarm.errors import FarmUnavailable, LeaseLost, NotFound, RenderfarmError, StorageFull
from renderfarm.ports import Farm
from renderfarm.services import outputs, results
from renderfarm.services.results import Assignment
from renderfarm.services.unit_script import generate_script

if TYPE_CHECKING:
    from actors.worker import Worker

log = logging.getLogger(__name__)
T = TypeVar("T")

#: For how many times ``lease_s`` a worker insists on writing. More than one, as a database may keep a writer waiting
#: for longer than a lease, and while nobody can write, nobody takes the lease away.
_PATIENCE_LEASES = 4
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0


class AttemptRun:
    """Fetches the inputs, drives the session, commits each frame as it comes."""

    def __init__(self, worker: Worker, lease: Lease) -> None:
        self.lease = lease
        self.asset_id: str | None = None
        self._worker = worker
        self._folder = worker.folder / f"{lease.unit_id}-{lease.attempt}"
        self.log_path = self._folder / "blender.log"
        self._output_dir = self._folder / "output"
        self._progress = Progress(frame=0, fraction=0.0, note="preparing", memory_bytes=0)
        self._frames_left = 0
        self._peak_memory_bytes = 0
        self._working: asyncio.Task[None] | None = None
        self._stopped = False
        self._ending = False
        """The last write is under way: that the lease is gone afterwards is as it should be."""
        self._publishing: set[asyncio.Task[None]] = set()
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

    async def to_the_end(self) -> Failure | None:
        """Run the attempt; return how it failed, if it did and anybody wants to know."""
        self._working = asyncio.create_task(self._work())
        heartbeat = asyncio.create_task(self._heartbeat())
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
            heartbeat.cancel()
            await asyncio.gather(*self._publishing, return_exceptions=True)
            await asyncio.to_thread(shutil.rmtree, self._folder, True)
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
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        assignment = await self._insist(results.begin, self.lease)
        self.asset_id = assignment.asset.id
        farm = self._worker.farm
        scene_path = await asyncio.to_thread(self._worker.cache.fetch, assignment.asset, farm.clock())
        session = await self._worker.session(assignment.unit.blender, self.log_path)
        if assignment.unit.kind is UnitKind.INSPECT:
            await self._inspect(session, scene_path)
        else:
            await self._render(session, scene_path, assignment)

    async def _inspect(self, session: BlenderSession, scene_path: Path) -> None:
        timeout_s = self._worker.farm.settings.open_timeout_s
        facts = await session.inspect(scene_path, log_path=self.log_path, open_timeout_s=timeout_s)
        self._peak_memory_bytes = session.peak_memory_bytes
        await self._insist(results.commit_inspection, self.lease, facts, await self._report())

    async def _render(self, session: BlenderSession, scene_path: Path, assignment: Assignment) -> None:
        if assignment.task is None:
            raise LookupError(f"render unit {assignment.unit.id} has no task")
        asked, settings = assignment.task.settings, self._worker.farm.settings
        self._frames_left = len(assignment.frames)
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
            on_frame=self._commit,
        )

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._peak_memory_bytes = max(self._peak_memory_bytes, progress.memory_bytes)

    async def _commit(self, done: FrameDone) -> None:
        """Store a frame's files, then make them part of the task."""
        files = [await self._insist(_store, Path(path), self._output_dir) for path in done.files]
        self._frames_left -= 1
        arguments = (self.lease, done.frame, files, done.render_seconds)
        if self._frames_left > 0:
            committed = await self._insist(results.commit_frame, *arguments)
        else:
            committed = await self._insist(results.commit_frame, *arguments, await self._report())
        publishing = asyncio.create_task(self._publish(committed))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)

    async def _publish(self, committed: Sequence[Output]) -> None:
        """Let a frame appear. Whatever fails here, the frame is committed, and the scheduler publishes it later."""
        names = ", ".join(output.name for output in committed)
        try:
            await self._worker.blocking(outputs.publish_outputs, committed)
        except RenderfarmError as error:
            log.warning("could not publish %s: %s", names, error)
        except Exception:
            log.exception("could not publish %s", names)

    async def _insist(self, step: Callable[..., T], *arguments: Any) -> T:
        """Call a function of the farm until it is available: a frame that took hours must not be thrown away.

        Raises:
            FarmUnavailable: for too long.
            LeaseLost: meanwhile the attempt was taken away.
        """
        patience_s = _PATIENCE_LEASES * self._worker.farm.settings.lease_s
        retry = stamina.AsyncRetryingCaller(
            attempts=None, timeout=patience_s, wait_initial=_RETRY_FIRST_S, wait_max=_RETRY_MAX_S, wait_jitter=0.1
        )
        return await retry(FarmUnavailable, self._worker.blocking, step, *arguments)

    async def _write_failure(self, failure: Failure) -> None:
        try:
            await self._insist(results.fail, self.lease, failure, await self._report())
        except (FarmUnavailable, StorageFull) as error:
            log.error(
                "unit %s failed (%s), which cannot be written down, so its lease will expire: %s",
                self.lease.unit_id,
                failure.message,
                error,
            )

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
        if digest is None:
            return
        try:
            await self._worker.blocking(results.attach_log, self.lease.unit_id, self.lease.attempt, digest)
        except (StorageFull, FarmUnavailable) as error:
            log.warning("Blender's output of unit %s is lost: %s", self.lease.unit_id, error)

    async def _heartbeat(self) -> None:
        """Renew the lease and tell the progress; when the lease is lost, stop. Nothing else ends the beat."""
        while True:
            await asyncio.sleep(self._worker.farm.settings.heartbeat_s)
            try:
                await asyncio.to_thread(self._beat)
            except LeaseLost:
                self.stop()
                return
            except RenderfarmError as error:
                log.warning("could not renew the lease of unit %s: %s", self.lease.unit_id, error)
            except Exception:
                log.exception("could not renew the lease of unit %s", self.lease.unit_id)

    def _beat(self) -> None:
        farm, progress = self._worker.farm, self._progress
        results.renew(farm, self.lease, progress.fraction, progress.note)
        if self.asset_id is not None:
            self._worker.cache.touch(self.asset_id, farm.clock())


def _store(farm: Farm, path: Path, output_dir: Path) -> RenderedFile:
    """Move a frame's file into the object store."""
    size_bytes = path.stat().st_size
    digest = farm.objects.put(path)
    path.unlink()
    return RenderedFile(name=path.relative_to(output_dir).as_posix(), digest=digest, size_bytes=size_bytes)
