"""What the end of a Blender meant."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from actors.session_watch import crash_failure
from renderfarm.domain.failures import FailureKind

KILLED = -signal.SIGKILL


@pytest.mark.parametrize(
    ("status", "oom_kills", "kind", "message"),
    [
        (KILLED, 1, FailureKind.OUT_OF_MEMORY, "Blender was killed by the system for want of memory"),
        (
            KILLED,
            0,
            FailureKind.CRASH,
            "Blender was killed by SIGKILL, perhaps by the system for want of memory: Error: the cause",
        ),
        # Another process may have been killed for want of memory: this one ended in its own way.
        (-signal.SIGSEGV, 1, FailureKind.CRASH, "Blender was killed by SIGSEGV: Error: the cause"),
        (1, 1, FailureKind.CRASH, "Blender ended by itself with exit code 1: Error: the cause"),
    ],
)
def test_only_the_kernel_says_for_sure_that_memory_was_wanting(
    tmp_path: Path, status: int, oom_kills: int, kind: FailureKind, message: str
) -> None:
    log = tmp_path / "log"
    log.write_text("Fra:1 Sample 1/2\nError: the cause\nHIPEW initialization failed: Error opening the library\n")
    failure = crash_failure(status, log, 0, oom_kills=oom_kills)
    assert (failure.kind, failure.message) == (kind, message)


def test_a_gpu_that_takes_blender_along_is_a_matter_of_the_device(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Illegal address in CUDA queue copy_from_device (integrator_shade_surface) failed\n")
    assert crash_failure(-signal.SIGABRT, log, 0).kind is FailureKind.DEVICE
