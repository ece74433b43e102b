"""The session's process: dying with its parent, its output, its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_IOLBF = 1  # <stdio.h>
_SCHED_FLAG_KEEP_POLICY = 0x08  # <linux/sched.h>
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # <asm/unistd.h>

#: A long slice: before others who can wait have their turn. The kernel's own choice is 3 ms or less.
_SLICE_S = 0.02


class _SchedAttr(ctypes.Structure):
    """``struct sched_attr`` of sched_setattr(2), in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    )


def die_with_parent(requests_fd: int) -> None:
    """Let the kernel kill this process when the thread that started it ends; exit at once if it has ended already.

    Linux only. Elsewhere the end of file on the requests' pipe ends an idle session, and a busy one after its frame.
    """
    if sys.platform == "linux":
        if _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot set the parent-death signal")
        # The parent may have died before the call, and its id tells nothing inside a process namespace of
        # its own; the other end of the pipe, which only the parent holds, does.
        pipe = select.poll()
        pipe.register(requests_fd, select.POLLHUP)
        if any(event & select.POLLHUP for _, event in pipe.poll(0)):
            end_now(1)


def end_now(status: int) -> NoReturn:
    """End the process without the interpreter's own finish, which may hang once Blender has rendered."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def remove_temporary_files() -> None:
    """Remove Blender's own temporary folder, which it does itself only when it ends in its own way."""
    import bpy

    shutil.rmtree(bpy.app.tempdir, ignore_errors=True)


@contextlib.contextmanager
def on_cores(count: int | None) -> Iterator[None]:
    """Show whatever is loaded inside the ``with`` block only so many of the cores (None: all of them).

    TBB, on which all of Blender runs in parallel, counts the cores once, when it is loaded, whatever number of threads
    a scene is to be rendered with. Where Cycles was to use one of two, another thread of TBB's even spun all the time
    (bpy 4.5, in sched_yield(2), seen in most runs), at the cost of whoever else was to use that core.
    """
    if sys.platform != "linux" or count is None:
        yield
        return
    cores = sorted(os.sched_getaffinity(0))
    # Sessions that start together do so on different cores.
    start = os.getpid() % len(cores)
    os.sched_setaffinity(0, (cores[start:] + cores[:start])[:count])
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread.name), cores)


def compute_in_slices(*, long: bool) -> None:
    """Let this process keep a core for longer at a time, but have no more of it; or as the kernel would have it.

    Ray's processes wake up a thousand times a second in all, each time for a few microseconds. Those of a farm on one
    machine wait for the end of Blender's slice (``serve_app.embedded``) while it has all cores, and fewer changes cost
    less: 4.8 % of a core instead of 6.1 % (measured with one worker on two cores, Linux 6.18). Whoever does not wait
    like that, such as the programs of a person at the machine, interrupts a long slice as ever.

    Not for short frames: where Blender's threads often wait for each other, two Blenders stand in each other's way
    (frames of a quarter of a second took longer by a sixth, in single runs). Linux 6.12 and later; others ignore it.
    """
    number = _SYS_SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is None:
        return
    attributes = _SchedAttr(
        size=ctypes.sizeof(_SchedAttr),
        sched_flags=_SCHED_FLAG_KEEP_POLICY,
        sched_nice=os.getpriority(os.PRIO_PROCESS, 0),
        sched_runtime=int(_SLICE_S * 1e9) if long else 0,
    )
    for thread in Path("/proc/self/task").iterdir():  # those that they start later do as they
        # A container may forbid it, and the thread may have ended: Blender renders without it as well.
        _libc().syscall(number, int(thread.name), ctypes.byref(attributes), 0)


def write_output_by_line() -> None:
    """Make C's and Python's standard output reach the log line by line, so that a crash leaves its last words."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with contextlib.suppress(ValueError):  # the C library does not export its stream under this name
        libc = _libc()
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _IOLBF, 0)


def send_output_to(path: str) -> None:
    """Append everything this process prints from now on, Blender's own lines included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    _libc().fflush(None)
    log_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)


def memory_bytes() -> int:
    """Return the resident memory, or its peak where the system does not tell."""
    return _status_bytes(b"VmRSS:") or _life_peak_bytes()


def peak_memory_bytes() -> int:
    """Return the peak resident memory since the last ``reset_peak_memory``, or of the whole life where that fails."""
    return _status_bytes(b"VmHWM:") or _life_peak_bytes()


def _status_bytes(name: bytes) -> int:
    """Return a line of proc(5)'s ``/proc/self/status`` in bytes, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    # At once, as it is asked for several times in each frame.
    _, _, found = Path("/proc/self/status").read_bytes().partition(name)
    return int(found.split(maxsplit=1)[0]) * 1024 if found else 0


def _life_peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Start the peak anew, so that each request has its own. See ``clear_refs`` in proc(5)."""
    # A locked-down container may forbid it; the peak then covers the whole life, which errs on the safe side.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
