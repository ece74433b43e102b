"""How long a thread may compute at a time, as the kernel tells: sched_getattr(2)."""

from __future__ import annotations

import ctypes
import os
import platform

from blender_runtime.process import _SchedAttr

_SYS_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}  # <asm/unistd.h>
#: What a session asks for while frames are long. Kernels before 6.12 have one slice for all, and tell 0.
LONG_SLICE_S = 0.02 if tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 12) else 0.0


def slice_s(pid: int) -> float:
    """Return the slice of a process's main thread; 0: of the calling thread."""
    told = _SchedAttr()
    size = ctypes.sizeof(told)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SYS_SCHED_GETATTR[platform.machine()], pid, ctypes.byref(told), size, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return float(told.sched_runtime / 1e9)
