"""The farm's side of a Blender session: a child process that works while this side watches it.

Nothing that Blender does to itself, a crash, a hang or a flood of memory, gets past this module: every end of the
child is told as a failure with a kind and a message for people.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from actors.blenders import Blender
from actors.node_resources import oom_kills
from actors.session_watch import Patience, crash_failure, log_size, system_failure
from blender_runtime import protocol
from blender_runtime.protocol import FrameDone, Opened, Progress
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.settings import child_environment

#: How long a child that is to end by itself may take.
_EXIT_TIMEOUT_S = 5.0
#: Facts of a scene with many missing files make long lines.
_REPLY_BYTES_MAX = 64 * 2**20
_FACTS = TypeAdapter(SceneFacts)
_Work = protocol.Inspect | protocol.Render | protocol.Merge
#: Lets Cycles say at the end of each render on which devices it was (``blender_runtime.devices``): of all that glog
#: would print, only what Cycles' sessions say. Up to Blender 4.5; later programs are told so by ``--log``.
_DEVICE_REPORT = {"GLOG_v": "-1", "GLOG_vmodule": "session=2"}


class SessionFailed(Exception):
    """A request failed; ``alive`` of the session tells whether Blender survived it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure


class SessionCancelled(Exception):
    """The session was killed on purpose."""


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A request that Blender has, or will have as soon as it reads on."""

    request_id: int
    request: protocol.Request
    log_start: int
    """How long the request's log was before."""
    oom_kills: int
    """How many the kernel had counted before."""


class BlenderSession:
    """One Blender process. Requests are made one after the other, and the next one may be sent ahead.

    ``kill`` may come at any time, from the same event loop.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log_path: Path,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._log_path = log_path
        self._log_start = 0
        self._request_id = 0
        """The latest one."""
        self._is_rendering = False
        self._ahead: _Sent | None = None
        self._withdrawn: set[int] = set()
        self._cancelled = False
        self._peak_memory_bytes = 0
        self._blender_version = ""
        self._open_scene: Path | None = None
        self._wants_restart = False
        self._oom_kills = oom_kills()
        """How many the kernel had counted when the request began."""

    @classmethod
    async def start(
        cls, blender: Blender, *, folder: Path, log_path: Path, start_timeout_s: float, threads: int | None = None
    ) -> BlenderSession:
        """Start Blender and wait until it answers.

        Cancelling the wait kills Blender. Call it on a thread that outlives the session: the kernel kills the child
        when the thread ends.

        Args:
            blender: which Blender to start.
            folder: the session's own, for Blender's user resources and temporary files; made if need be.
            log_path: file to which Blender's output is appended until a request names another.
            start_timeout_s: limit from here to Blender's first answer.
            threads: threads to render with; None: as each file says.

        Raises:
            SessionFailed: ``crash`` when it does not start or ends, ``storage`` when the disk is full, ``timeout`` when
                it does not answer in time.
        """
        session = await cls._spawn(blender, folder, log_path, threads)
        try:
            patience = Patience(log_path)
            patience.allow("starting Blender", start_timeout_s)
            reply = await session._next_reply(0, patience)
            if not isinstance(reply, protocol.Ready):
                raise protocol.ProtocolError(f"{type(reply).__name__} instead of Ready")
        except BaseException:
            session.kill()
            await session.close()
            raise
        session._blender_version = reply.blender_version
        return session

    @classmethod
    async def _spawn(cls, blender: Blender, folder: Path, log_path: Path, threads: int | None) -> BlenderSession:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours, limit=_REPLY_BYTES_MAX)
            try:
                process = await _start_process(blender, folder, log_path, threads, theirs.fileno())
            except BaseException as error:
                writer.transport.abort()
                if isinstance(error, OSError):
                    raise SessionFailed(system_failure(f"cannot start {blender.argv_prefix[0]}", error)) from error
                raise
        # Nothing is awaited between the start and here, so that no process is lost to a cancel.
        return cls(process, reader, writer, log_path)

    # --- requests --------------------------------------------------------------------------------------------

    async def inspect(self, scene_path: Path, *, log_path: Path, open_timeout_s: float) -> SceneFacts:
        """Open a file and return its facts.

        Raises:
            SessionFailed, SessionCancelled
        """
        request = protocol.Inspect(scene_path=str(scene_path), log_path=str(log_path))

        async def ignore(_: protocol.Reply) -> None:
            """Opening a file has nothing to tell on the way."""

        value = await self._exchange(request, _opening(request, open_timeout_s), ignore)
        return _FACTS.validate_python(value)

    async def render(
        self,
        request: protocol.Render,
        *,
        open_timeout_s: float,
        frame_timeout_s: float,
        no_progress_timeout_s: float,
        on_begin: Callable[[Opened], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_frame: Callable[[FrameDone], Awaitable[None]] | None = None,
    ) -> tuple[FrameDone, ...]:
        """Render frames by a unit's script into a folder, which is made if need be.

        Blender goes on with the next frame while ``on_frame`` is awaited. What a callback raises kills the session.

        Raises:
            SessionFailed, SessionCancelled
        """
        patience = _opening(request, open_timeout_s)
        frames, done = request.frames, list[FrameDone]()

        async def take(reply: protocol.Reply) -> None:
            self._is_rendering = True
            if isinstance(reply, Opened) and on_begin is not None:
                on_begin(reply)
            if isinstance(reply, Progress) and on_progress is not None:
                on_progress(reply)
            if isinstance(reply, FrameDone):
                done.append(reply)
                if on_frame is not None:
                    await on_frame(reply)
            if isinstance(reply, (Opened, FrameDone)) and len(done) < len(frames):
                patience.allow(f"frame {frames[len(done)]}", frame_timeout_s, no_progress_timeout_s)

        try:
            value = await self._exchange(request, patience, take)
        finally:
            self._is_rendering = False
        self._wants_restart = bool(value.get("restart"))
        return tuple(done)

    @property
    def takes_ahead(self) -> bool:
        """It renders, and has no other request yet."""
        return self._is_rendering and self.alive and self._ahead is None

    def send_ahead(self, request: protocol.Render) -> None:
        """Let Blender begin with the next request as soon as it is done with this one, without waiting for the farm.

        The next to be made must be this very one, by ``render``, unless it is withdrawn.
        """
        self._ahead = self._write(request)

    def withdraw(self, request: protocol.Render) -> None:
        """Take back a request, if it was sent ahead. A Blender that must have begun with it is killed."""
        if self._ahead is None or self._ahead.request is not request:
            return
        if self._is_rendering:
            self._take_back(self._ahead)
        else:
            self._end()
        self._ahead = None

    def _take_back(self, sent: _Sent) -> None:
        """Withdraw a request; should Blender have begun with it this very moment, nobody hears of that."""
        self._withdrawn.add(sent.request_id)
        if self.alive:
            self._writer.write(protocol.encode(sent.request_id, protocol.Withdraw()))

    async def merge(
        self,
        request: protocol.Merge,
        *,
        open_timeout_s: float,
        frame_timeout_s: float,
        no_progress_timeout_s: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> FrameDone:
        """Write a frame's files into a folder from the merged passes of its parts.

        Raises:
            SessionFailed, SessionCancelled
        """
        patience = _opening(request, open_timeout_s)
        done: list[FrameDone] = []

        async def take(reply: protocol.Reply) -> None:
            if isinstance(reply, Progress) and on_progress is not None:
                on_progress(reply)
            if isinstance(reply, FrameDone):
                done.append(reply)
            if isinstance(reply, Opened):
                patience.allow(f"merging frame {request.frame}", frame_timeout_s, no_progress_timeout_s)

        value = await self._exchange(request, patience, take)
        self._wants_restart = bool(value.get("restart"))
        return done[0]

    async def _exchange(
        self,
        request: _Work,
        patience: Patience,
        take: Callable[[protocol.Reply], Awaitable[None]],
    ) -> dict[str, Any]:
        """Send a request, pass its replies on and return its result. Any other way out but an error reply kills."""
        if self._ahead is not None and self._ahead.request is not request:  # cancelled, and about to be withdrawn
            self._take_back(self._ahead)
            self._ahead = None
        sent, self._ahead = self._ahead or self._write(request), None
        self._peak_memory_bytes, self._oom_kills = 0, sent.oom_kills
        self._log_path, self._log_start = Path(request.log_path), sent.log_start
        try:
            await self._drain()
            while not isinstance(
                reply := await self._next_reply(sent.request_id, patience), (protocol.Result, protocol.Error)
            ):
                if isinstance(reply, Opened):
                    self._open_scene = Path(reply.scene_path)
                await take(reply)
        except BaseException:
            self._end()
            raise
        if isinstance(reply, protocol.Error):
            self._open_scene = None
            raise SessionFailed(Failure(kind=FailureKind(reply.kind), message=reply.message))
        return reply.value

    def _write(self, request: _Work) -> _Sent:
        self._request_id += 1
        sent = _Sent(
            request_id=self._request_id,
            request=request,
            log_start=log_size(Path(request.log_path)),
            oom_kills=oom_kills(),
        )
        self._writer.write(protocol.encode(sent.request_id, request))
        return sent

    async def _drain(self) -> None:
        # A child that is gone is noticed in reading, together with the reason.
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def _next_reply(self, wanted_id: int, patience: Patience) -> protocol.Reply:
        while True:
            line = await self._next_line(patience)
            if self._cancelled:
                raise SessionCancelled("the session was killed on request")
            if not line.endswith(b"\n"):  # the end of the stream, perhaps in the middle of a line
                raise SessionFailed(await self._crash())
            patience.heard()
            request_id, reply = protocol.decode_reply(line)
            if request_id not in self._withdrawn:
                break
            patience.begin_again()
        if request_id != wanted_id:
            raise protocol.ProtocolError(f"a reply to request {request_id} instead of {wanted_id}")
        if isinstance(reply, (Progress, FrameDone)):
            self._peak_memory_bytes = max(self._peak_memory_bytes, reply.memory_bytes)
        return reply

    async def _next_line(self, patience: Patience) -> bytes:
        while True:
            try:
                async with asyncio.timeout(patience.wait_s()):
                    return await self._reader.readline()
            except ConnectionError:
                return b""
            except TimeoutError:
                failure = patience.failure()
                if failure is not None:
                    raise SessionFailed(failure) from None

    async def _crash(self) -> Failure:
        """Wait for the end of a child whose pipe has ended, and say what it was."""
        try:
            async with asyncio.timeout(_EXIT_TIMEOUT_S):
                status = await self._process.wait()
        except TimeoutError:
            self._end()
            status = await self._process.wait()
        return crash_failure(status, self._log_path, self._log_start, oom_kills=oom_kills() - self._oom_kills)

    # --- the end ---------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End Blender now, whatever it does. A request under way raises SessionCancelled."""
        self._cancelled = True
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        # So that whoever reads sees the end, even if the kernel takes its time with a process in a driver.
        self._writer.transport.abort()
        self._open_scene = None

    async def close(self) -> None:
        """Let Blender quit, or kill it if it is busy for longer than some seconds; leave nothing behind."""
        try:
            if self.alive and self._ahead is None:
                self._writer.write(protocol.encode(self._request_id + 1, protocol.Quit()))
                await self._drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_EXIT_TIMEOUT_S):
                        await self._process.wait()
        finally:
            self.kill()
        await self._process.wait()

    # --- looking ---------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._writer.transport.is_closing()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def blender_version(self) -> str:
        """The version that this Blender tells of itself."""
        return self._blender_version

    @property
    def open_scene(self) -> Path | None:
        """The file that is open in Blender."""
        return self._open_scene

    @property
    def wants_restart(self) -> bool:
        """It holds more memory than it may, whatever it has given up."""
        return self._wants_restart

    @property
    def peak_memory_bytes(self) -> int:
        """Peak resident memory of the latest request; of a dead child, what its last progress told."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(errors="replace") if self.alive else ""
        except OSError:  # it has just ended, or this system has no /proc
            status = ""
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return max(self._peak_memory_bytes, int(peak[1]) * 1024 if peak else 0)


def _opening(request: _Work, timeout_s: float) -> Patience:
    patience = Patience(Path(request.log_path))
    patience.allow("opening the file", timeout_s)
    return patience


async def _start_process(
    blender: Blender, folder: Path, log_path: Path, threads: int | None, pipe: int
) -> asyncio.subprocess.Process:
    """Start a child that listens and answers on the pipe. Raises OSError."""
    options = ["--requests-fd", str(pipe), "--replies-fd", str(pipe)]
    options += [] if threads is None else ["--threads", str(threads)]
    environment = _environment(folder)
    with log_path.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *blender.command(threads),
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(pipe,),
            cwd=folder,
            # In this process group, too: a group of its own would outlive a killed worker.
            env=environment,
        )


def _environment(folder: Path) -> dict[str, str]:
    """Return this process's environment, handed on as it is but for Blender's own folders."""
    user, temporary = folder / "user", folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed Blender has left
    for path in (user, temporary):
        path.mkdir(parents=True, exist_ok=True)
    folders = {"BLENDER_USER_RESOURCES": str(user)} | dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(temporary))
    return child_environment(folders | _DEVICE_REPORT)
