"""States of assets, tasks, units and workers, and the one table of steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from renderfarm.errors import IllegalTransition


class AssetState(StrEnum):
    PENDING = "pending"
    READY = "ready"
    REJECTED = "rejected"


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class UnitState(StrEnum):
    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkerState(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    GONE = "gone"


State = AssetState | TaskState | UnitState

_A, _T, _U = AssetState, TaskState, UnitState

#: For each kind of state: from each state, those one step away. A retry takes an ended task or unit back to the start.
#: A table for each kind, because members of different StrEnums are equal keys where their text is.
TRANSITIONS: Mapping[type[State], Mapping[State, frozenset[State]]] = {
    AssetState: {
        _A.PENDING: frozenset({_A.READY, _A.REJECTED}),
        _A.READY: frozenset(),
        _A.REJECTED: frozenset(),
    },
    TaskState: {
        _T.QUEUED: frozenset({_T.RUNNING, _T.PAUSED, _T.FAILED, _T.CANCELLED}),
        _T.RUNNING: frozenset({_T.PAUSED, _T.COMPLETED, _T.FAILED, _T.CANCELLED}),
        # Frames that were running when the task was paused may still finish it.
        _T.PAUSED: frozenset({_T.QUEUED, _T.RUNNING, _T.COMPLETED, _T.FAILED, _T.CANCELLED}),
        _T.COMPLETED: frozenset({_T.QUEUED}),
        _T.FAILED: frozenset({_T.QUEUED}),
        _T.CANCELLED: frozenset({_T.QUEUED}),
    },
    UnitState: {
        _U.BLOCKED: frozenset({_U.READY, _U.CANCELLED}),
        # What a unit was made of may be undone.
        _U.READY: frozenset({_U.BLOCKED, _U.RUNNING, _U.CANCELLED}),
        _U.RUNNING: frozenset({_U.READY, _U.SUCCEEDED, _U.FAILED, _U.CANCELLED}),
        _U.SUCCEEDED: frozenset({_U.READY}),
        _U.FAILED: frozenset({_U.READY}),
        _U.CANCELLED: frozenset({_U.READY}),
    },
}

TASK_ENDED = frozenset({_T.COMPLETED, _T.FAILED, _T.CANCELLED})
UNIT_OPEN = frozenset({UnitState.BLOCKED, UnitState.READY, UnitState.RUNNING})
UNIT_WAITING = frozenset({_U.READY, _U.BLOCKED})
UNIT_ENDED = frozenset({_U.SUCCEEDED, _U.FAILED, _U.CANCELLED})


def check_step(old: State, new: State) -> None:
    """Raise IllegalTransition unless the table allows the step from ``old`` to ``new``."""
    if type(old) is not type(new) or new not in TRANSITIONS[type(old)][old]:
        raise IllegalTransition(f"it is already {new}" if old == new else f"it is {old} and cannot become {new}")
