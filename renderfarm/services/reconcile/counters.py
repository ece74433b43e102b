"""The database against itself: a task's counters against its units and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from renderfarm.domain.models import Task
from renderfarm.domain.states import TASK_ENDED, UNIT_OPEN, TaskState, UnitState
from renderfarm.ports import Counters, TaskLine, Transaction
from renderfarm.services.journal import Cause, log_units, move_task, note_task, touch_task
from renderfarm.services.reconcile.findings import REPAIRED, Finding, Kind, Look, Subject
from renderfarm.services.reconcile.statuses import every_task
from renderfarm.services.results import outcome

_UNITS = 100_000


def find_wrong(look: Look) -> Iterator[Finding]:
    """Yield tasks that count something else than there is."""
    for ids in (portion for lines in every_task(look) for portion in _portions(lines)):
        look.counts["tasks"] += len(ids)
        # Counted together: what a task says and what its units say is of one moment.
        with look.farm.database.read() as tx:
            said = {line.id: line.counters for line in tx.survey.tasks_of(ids)}
            counted = tx.survey.tally(ids)
        for task_id, counters in said.items():
            if counters != counted[task_id]:
                yield _finding(task_id, counters, counted[task_id])


def _portions(lines: Sequence[TaskLine]) -> Iterator[list[str]]:
    """Yield the ids of tasks in parts of so many units that counting them is one short query."""
    ids: list[str] = []
    units = 0
    for line in lines:
        ids.append(line.id)
        units += line.counters.units_total
        if units >= _UNITS:
            yield ids
            ids, units = [], 0
    if ids:
        yield ids


def _finding(task_id: str, said: Counters, counted: Counters) -> Finding:
    pairs = [(name, was, asdict(counted)[name]) for name, was in asdict(said).items()]
    wrong = ", ".join(f"{name} is {was} instead of {right}" for name, was, right in pairs if was != right)
    return Finding(
        kind=Kind.WRONG_COUNTERS,
        subject=Subject(task_id=task_id),
        detail=f"task {task_id} counts wrong: {wrong}",
        # By how much each is off: that stays the same while the task goes on.
        evidence=tuple(was - right for _, was, right in pairs),
    )


def recount(look: Look, finding: Finding) -> bool:
    """Count again while nobody changes the task, and end it if nothing of it is left to do."""
    task_id = finding.subject.task_id or ""
    with look.write() as tx:
        task = tx.tasks.lock(task_id)
        if task is None:
            return True
        counters = tx.survey.tally([task_id])[task_id]
        new = replace(task, **asdict(counters))
        if new != task:
            cause = look.cause(finding.detail)
            note_task(tx, task, REPAIRED, cause)
            _write(tx, task, new, cause)
    look.farm.compute.wake()
    return True


def _write(tx: Transaction, old: Task, new: Task, cause: Cause) -> None:
    """Write the right counters, and take the task to where its units are."""
    if old.state in TASK_ENDED and new.units_open > 0:
        _go_on(tx, old, new, cause)
    elif old.state not in TASK_ENDED and new.units_total > 0 and new.units_open == 0:
        _end(tx, old, new, cause)
    else:
        touch_task(tx, old, new, cause)


def _go_on(tx: Transaction, old: Task, new: Task, cause: Cause) -> None:
    """Render what an ended task has left, unless somebody has cancelled it."""
    if old.state is TaskState.CANCELLED and tx.units.count(old.id, UnitState.CANCELLED) > 0:
        log_units(tx, replace(new, revision=old.revision + 1), tuple(UNIT_OPEN), UnitState.CANCELLED, cause)
        tx.attempts.cancel_running(old.id, cause.at)
        tx.units.cancel_open(old.id)
        touch_task(tx, old, replace(new, units_open=0), cause)
    else:
        move_task(tx, old, replace(new, state=TaskState.QUEUED, finished_at=None), cause)


def _end(tx: Transaction, old: Task, new: Task, cause: Cause) -> None:
    """End a task whose units have all ended."""
    if old.state is TaskState.QUEUED:
        old = move_task(tx, old, replace(old, state=TaskState.RUNNING), cause)
    state, reason = outcome(new)
    move_task(tx, old, replace(new, state=state, finished_at=cause.at), replace(cause, reason=reason))
