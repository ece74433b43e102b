"""Exit codes of the command line, and which error has which: the only place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from renderfarm.domain.states import TaskState
from renderfarm.errors import Conflict, Forbidden, InvalidInput, NotFound, RenderfarmError, StorageFull

COMPLETED = 0
TASK_FAILED = 1
"""The task ended without all its frames: failed, or cancelled by somebody."""
STILL_WRONG = 1
"""A check has found something that is not mended."""
BAD_INPUT = 2
"""Bad usage or input, or no room on a disk: asking again in the same way would not help."""
UNAVAILABLE = 3
"""No farm, or one that cannot serve now: a service down, a broken connection."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""

_INPUT_ERRORS = (InvalidInput, NotFound, Forbidden, Conflict, StorageFull)


def of_error(error: RenderfarmError) -> int:
    """Return the exit code for an error."""
    return BAD_INPUT if isinstance(error, _INPUT_ERRORS) else UNAVAILABLE


def of_task(status: Mapping[str, Any]) -> int:
    """Return the exit code for an ended task's status."""
    return COMPLETED if status["status"] == TaskState.COMPLETED else TASK_FAILED
