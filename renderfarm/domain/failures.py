"""Failure kinds, and what each of them means for a retry and for the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    LOST = "lost"
    """The node or the worker is gone; free of charge."""
    CRASH = "crash"
    """Blender ended by itself or by a signal."""
    TIMEOUT = "timeout"
    """Blender did not start, did not progress or did not finish in time."""
    OUT_OF_MEMORY = "out_of_memory"
    DEVICE = "device"
    """Asked for a GPU, got none."""
    STORAGE = "storage"
    """The node's disk or the object store did not take or give the bytes."""
    MISSING_FILE = "missing_file"
    BAD_FILE = "bad_file"
    """Blender cannot open the file."""
    SCRIPT_ERROR = "script_error"
    """The unit's script failed: a setting that this scene does not have, for example."""
    FLAWED = "flawed"
    """The picture looks wrong, and the task wants such frames to be rendered again."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    kind: FailureKind
    message: str
    """One line, for people."""


@dataclass(frozen=True, kw_only=True)
class RetryRule:
    attempts_max: int
    """Failed attempts of this kind after which the unit fails for good."""
    blames_worker: bool
    """The worker may be the cause: the unit goes elsewhere if it can."""
    is_recorded: bool = True
    """Where the worker is to blame, its record shows it: with several in a row it is set aside."""


RULES: Mapping[FailureKind, RetryRule] = {
    # A node that vanishes says nothing about the frame, but twenty of them do.
    FailureKind.LOST: RetryRule(attempts_max=20, blames_worker=False),
    FailureKind.CRASH: RetryRule(attempts_max=3, blames_worker=True),
    FailureKind.TIMEOUT: RetryRule(attempts_max=2, blames_worker=True),
    FailureKind.OUT_OF_MEMORY: RetryRule(attempts_max=3, blames_worker=True),
    FailureKind.DEVICE: RetryRule(attempts_max=3, blames_worker=True),
    FailureKind.STORAGE: RetryRule(attempts_max=4, blames_worker=True),
    FailureKind.MISSING_FILE: RetryRule(attempts_max=1, blames_worker=False),
    FailureKind.BAD_FILE: RetryRule(attempts_max=1, blames_worker=False),
    FailureKind.SCRIPT_ERROR: RetryRule(attempts_max=1, blames_worker=False),
    # A film may well begin with a black second: that must not cost the farm its workers.
    FailureKind.FLAWED: RetryRule(attempts_max=2, blames_worker=True, is_recorded=False),
}

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0


def is_last_try(failures: Sequence[FailureKind], kind: FailureKind) -> bool:
    """Tell whether one more failure of a kind, after those so far, would be a unit's end."""
    return failures.count(kind) + 1 >= RULES[kind].attempts_max


def retry_delay_s(failures: Sequence[FailureKind], jitter: float) -> float | None:
    """Return the wait before the next attempt in seconds, or None if there is to be none.

    Args:
        failures: kinds of all failed attempts so far, the latest last; not empty.
        jitter: a random number from 0 to 1. The wait is between half and all of the exponential step
            ("equal jitter", M. Brooker, AWS Architecture Blog, 2015).
    """
    *earlier, latest = failures
    if is_last_try(earlier, latest):
        return None
    step_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (len(failures) - 1))
    return step_s * (0.5 + 0.5 * jitter)


#: Failures in a row, none of them excusable, after which a worker is set aside.
SET_ASIDE_AFTER = 3
SET_ASIDE_S = 600.0
