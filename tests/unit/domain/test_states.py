from __future__ import annotations

import pytest

from renderfarm.domain.states import (
    TASK_ENDED,
    TRANSITIONS,
    UNIT_ENDED,
    AssetState,
    State,
    TaskState,
    UnitState,
    check_step,
)
from renderfarm.errors import IllegalTransition

EVERY_STATE: tuple[State, ...] = (*AssetState, *TaskState, *UnitState)


def steps_from(state: State) -> frozenset[State]:
    return TRANSITIONS[type(state)][state]


def reachable(start: State) -> set[State]:
    """Return every state that ``start`` can lead to."""
    seen: set[State] = set()
    ahead = [start]
    while ahead:
        for state in steps_from(ahead.pop()) - seen:
            seen.add(state)
            ahead.append(state)
    return seen


def test_the_table_knows_every_state() -> None:
    assert {kind: set(steps) for kind, steps in TRANSITIONS.items()} == {
        kind: set(kind) for kind in (AssetState, TaskState, UnitState)
    }


@pytest.mark.parametrize("old", EVERY_STATE, ids=lambda state: f"{type(state).__name__}.{state}")
def test_a_step_is_legal_just_when_the_table_has_it(old: State) -> None:
    # Members of different StrEnums are equal as text, but a task's "running" is no unit's.
    legal = {(type(new), new) for new in steps_from(old)}
    for new in EVERY_STATE:
        if (type(new), new) in legal:
            check_step(old, new)
        else:
            with pytest.raises(
                IllegalTransition,
                match=f"it is already {new}" if old == new else f"it is {old} and cannot become {new}",
            ):
                check_step(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TaskState.QUEUED, TaskState.COMPLETED),  # T: queued > completed: something must have run
        (TaskState.COMPLETED, TaskState.CANCELLED),  # T: completed > cancelled: too late
        (TaskState.CANCELLED, TaskState.RUNNING),  # T: cancelled > running: only by way of queued
        (TaskState.COMPLETED, TaskState.PAUSED),
        (UnitState.READY, UnitState.SUCCEEDED),  # U: ready > succeeded: nobody held a lease
        (UnitState.BLOCKED, UnitState.RUNNING),  # U: blocked > running: what it depends on is not there
        (UnitState.SUCCEEDED, UnitState.RUNNING),
        (AssetState.REJECTED, AssetState.READY),
        (AssetState.READY, AssetState.PENDING),
    ],
)
def test_steps_that_must_never_be(old: State, new: State) -> None:
    with pytest.raises(IllegalTransition):
        check_step(old, new)


@pytest.mark.parametrize("state", EVERY_STATE)
def test_nothing_steps_to_itself(state: State) -> None:
    with pytest.raises(IllegalTransition):
        check_step(state, state)


@pytest.mark.parametrize("ended", sorted(TASK_ENDED))
def test_an_ended_task_can_only_start_over(ended: TaskState) -> None:
    assert steps_from(ended) == {TaskState.QUEUED}


@pytest.mark.parametrize("ended", sorted(UNIT_ENDED))
def test_an_ended_unit_can_only_start_over(ended: UnitState) -> None:
    assert steps_from(ended) == {UnitState.READY}


@pytest.mark.parametrize("state", [state for state in TaskState if state not in TASK_ENDED])
def test_every_open_task_can_be_cancelled_and_can_fail(state: TaskState) -> None:
    check_step(state, TaskState.CANCELLED)
    check_step(state, TaskState.FAILED)


@pytest.mark.parametrize("state", [state for state in UnitState if state not in UNIT_ENDED])
def test_every_open_unit_can_be_cancelled(state: UnitState) -> None:
    check_step(state, UnitState.CANCELLED)


def test_from_its_first_state_everything_reaches_every_other() -> None:
    assert reachable(TaskState.QUEUED) == set(TaskState)
    assert reachable(UnitState.BLOCKED) == set(UnitState)
    assert reachable(AssetState.PENDING) == set(AssetState) - {AssetState.PENDING}
