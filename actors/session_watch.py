"""Watching a Blender from outside: how long to wait for it, and what its end meant."""

from __future__ import annotations

import errno
import re
import signal
import time
from pathlib import Path

from blender_runtime.protocol import failure_kind, one_line
from renderfarm.domain.failures import Failure, FailureKind

#: How often a log is looked at for growth.
_LOOK_S = 1.0
_LOG_TAIL_BYTES = 64 * 2**10
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)

_COMPLAINT = re.compile(r"error|exception|fatal|assert|abort|cannot|could not|fail|out of memory|returns null")
# Written by bpy at the end of every render, and by Cycles wherever there is no GPU: meaningless to people.
_NOISE = re.compile(r"not freed memory blocks|writing: .*crash\.txt|(cuew|hipew) initialization failed")


class Patience:
    """How long the present step may take, and how long Blender may stay silent in it.

    A sign of life is a reply, or growth of the log.
    """

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self._log_size = log_size(log_path)
        self.allow("starting", 0.0)

    def allow(self, doing: str, limit_s: float, silence_s: float | None = None) -> None:
        """Begin another step."""
        self._doing, self._limit_s, self._silence_s = doing, limit_s, silence_s
        self.begin_again()

    def begin_again(self) -> None:
        """Begin the present step anew: it was something else that took its time."""
        self._began = self._heard = time.monotonic()

    def heard(self) -> None:
        """Note a reply."""
        self._heard = time.monotonic()

    def wait_s(self) -> float:
        """Return how long to wait for a reply before asking ``failure``."""
        now = time.monotonic()
        waits = [self._began + self._limit_s - now]
        if self._silence_s is not None:
            waits += [self._heard + self._silence_s - now, _LOOK_S]
        return max(0.01, min(waits))

    def failure(self) -> Failure | None:
        """Return the failure if patience has run out."""
        now = time.monotonic()
        size = log_size(self._log_path)
        if size != self._log_size:
            self._log_size, self._heard = size, now
        if now - self._began >= self._limit_s:
            return _timeout(f"{self._doing} took longer than {self._limit_s:g} s")
        if self._silence_s is not None and now - self._heard >= self._silence_s:
            return _timeout(f"{self._doing} showed no progress for {self._silence_s:g} s")
        return None


def _timeout(message: str) -> Failure:
    return Failure(kind=FailureKind.TIMEOUT, message=message)


def log_size(path: Path) -> int:
    """Return a log's size in bytes, 0 before its first line."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def system_failure(what: str, error: OSError) -> Failure:
    """Say what the system has refused, and whether it was for want of a disk."""
    kind = FailureKind.STORAGE if error.errno in _DISK_ERRORS else FailureKind.CRASH
    return Failure(kind=kind, message=one_line(f"{what}: {error.strerror or error}"))


def crash_failure(status: int, log_path: Path, log_start: int, *, oom_kills: int = 0) -> Failure:
    """Say why Blender ended, from its exit status and what its log says from byte ``log_start`` on.

    Args:
        status: the exit code, or minus the number of the signal.
        oom_kills: processes that the kernel has killed for want of memory meanwhile.
    """
    if status == -signal.SIGKILL and oom_kills > 0:
        return Failure(kind=FailureKind.OUT_OF_MEMORY, message="Blender was killed by the system for want of memory")
    complaint = _last_complaint(log_path, log_start)
    message = f"Blender {_how(status)}" + (f": {complaint}" if complaint else "")
    return Failure(kind=FailureKind(failure_kind(complaint, FailureKind.CRASH)), message=one_line(message))


def _how(status: int) -> str:
    if status >= 0:
        return f"ended by itself with exit code {status}"
    if -status == signal.SIGKILL:
        return "was killed by SIGKILL, perhaps by the system for want of memory"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-status}"


def _last_complaint(log_path: Path, log_start: int) -> str:
    """Return the last line that looks like an error, or an empty text."""
    if log_size(log_path) <= log_start:
        return ""
    with log_path.open("rb") as log:
        log.seek(max(log_start, log_size(log_path) - _LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    complaints = (line.strip() for line in reversed(lines) if _is_complaint(line.lower()))
    return next(complaints, "")


def _is_complaint(line: str) -> bool:
    return _COMPLAINT.search(line) is not None and _NOISE.search(line) is None
