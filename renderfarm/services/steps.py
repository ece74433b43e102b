"""Many units, their tasks and attempts changed in one transaction: locked, stepped one by one, written together.

A farm of short units spends its time in the database. Gathered like this, the changes of a hundred units cost about as
many statements as those of one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Self

from renderfarm.domain.failures import Failure
from renderfarm.domain.leases import AttemptReport
from renderfarm.domain.models import Attempt, AttemptStep, LogEntry, Output, ReadyUnit, Task, Unit
from renderfarm.domain.states import AttemptState, TaskState, UnitState, check_step
from renderfarm.errors import RolledBack
from renderfarm.ports import Transaction
from renderfarm.services.journal import Cause, task_entry, unit_entry


class Steps:
    """What a transaction makes of some units. Tasks are locked before units, all in the order of their ids."""

    def __init__(self, tx: Transaction, task_ids: Collection[str | None]) -> None:
        """Lock the tasks."""
        self._tx = tx
        self._old_tasks = tx.tasks.lock_all({task_id for task_id in task_ids if task_id is not None})
        self._tasks = dict(self._old_tasks)
        self._touched: set[str] = set()
        self._updated_at = 0.0
        self._old_units: dict[str, Unit] = {}
        self._units: dict[str, Unit] = {}
        self._leases: list[tuple[ReadyUnit, str]] = []
        self._new_attempts: list[Attempt] = []
        self._attempts: dict[str, AttemptStep] = {}
        self._new_outputs: list[Output] = []
        self._impressions: dict[str, bytes] = {}
        self._new_units: dict[bool, list[Unit]] = {False: [], True: []}
        """Held back or not."""
        self._entries: list[LogEntry] = []

    def lock(self, unit_ids: Collection[str]) -> Self:
        """Lock units, and read them."""
        self._old_units = self._tx.units.lock_all(unit_ids)
        self._units = dict(self._old_units)
        return self._with_fed()

    def confirm(self, units: Collection[Unit]) -> Self:
        """Lock those units that still run the attempt with which they are given."""
        self._old_units = self._tx.units.confirm(units)
        self._units = dict(self._old_units)
        return self._with_fed()

    def _with_fed(self) -> Self:
        """Lock also what waits for the units that are locked, and so on."""
        while True:
            fed = {unit.feeds for unit in self._old_units.values() if unit.feeds is not None}
            missing = fed.difference(self._old_units)
            if not missing:
                return self
            found = self._tx.units.lock_all(missing)
            self._old_units |= found
            self._units |= found
            if missing.difference(found):
                raise LookupError(f"units {sorted(missing.difference(found))} are waited for and not there")

    # --- as things are now -----------------------------------------------------------------------------------

    def unit(self, unit_id: str) -> Unit | None:
        return self._units.get(unit_id)

    def task(self, task_id: str | None) -> Task | None:
        return None if task_id is None else self._tasks.get(task_id)

    def revision(self, task_id: str | None) -> int | None:
        """Return the revision that a task will have once it is written."""
        old = None if task_id is None else self._old_tasks.get(task_id)
        return None if old is None else old.revision + 1

    # --- steps -----------------------------------------------------------------------------------------------

    def step_unit(self, new: Unit, cause: Cause) -> None:
        """Change a unit's state. Raises IllegalTransition."""
        old = self._units[new.id]
        check_step(old.state, new.state)
        self._units[new.id] = new
        self.note_unit(new, "unit.state", old.state, new.state, cause)

    def feed(self, unit: Unit, cause: Cause) -> None:
        """Let what waits for a unit know that it has succeeded."""
        fed = None if unit.feeds is None else self._units[unit.feeds]
        if fed is None or fed.state is not UnitState.BLOCKED:
            return
        new = replace(fed, inputs_open=fed.inputs_open - 1)
        if new.inputs_open > 0:
            self.set_unit(new)
        else:
            self.step_unit(replace(new, state=UnitState.READY), replace(cause, reason="all that it waits for is there"))

    def abandon(self, unit: Unit, cause: Cause) -> int:
        """Cancel what waits for a unit that will not succeed; return how many units that were."""
        fed = None if unit.feeds is None else self._units[unit.feeds]
        if fed is None or fed.state is not UnitState.BLOCKED:
            return 0
        self.step_unit(replace(fed, state=UnitState.CANCELLED), cause)
        return 1 + self.abandon(fed, cause)

    def set_unit(self, new: Unit) -> None:
        """Change a unit, but not its state."""
        self._units[new.id] = new

    def note_unit(self, unit: Unit, event: str, old: str | None, new: str | None, cause: Cause) -> None:
        """Add a line about a unit's present attempt to the execution log."""
        self._entries.append(unit_entry(cause, event, old, new, unit, self.revision(unit.task_id)))

    def step_task(self, new: Task, cause: Cause) -> None:
        """Change a task's state. Raises IllegalTransition."""
        old = self._tasks[new.id]
        check_step(old.state, new.state)
        self.set_task(new, cause)
        told = replace(new, revision=self._old_tasks[new.id].revision + 1)
        self._entries.append(task_entry(cause, "task.state", old.state, new.state, told))

    def set_task(self, new: Task, cause: Cause) -> None:
        """Change a task's counters, but not its state."""
        self._tasks[new.id] = new
        self._touched.add(new.id)
        self._updated_at = max(self._updated_at, cause.at)

    def advance(self, unit: Unit, seconds: float) -> None:
        """Add render time to a unit's present attempt."""
        step = self._attempts.get(unit.id) or AttemptStep(unit_id=unit.id, number=unit.attempt)
        self._attempts[unit.id] = replace(step, render_seconds=step.render_seconds + seconds)

    def end_attempt(
        self, unit: Unit, state: AttemptState, report: AttemptReport, failure: Failure | None, now: float
    ) -> None:
        step = self._attempts.get(unit.id)
        self._attempts[unit.id] = AttemptStep(
            unit_id=unit.id,
            number=unit.attempt,
            render_seconds=0.0 if step is None else step.render_seconds,
            state=state,
            failure=failure,
            log_digest=report.log_digest,
            peak_memory_bytes=report.peak_memory_bytes,
            devices=report.devices or None,
            finished_at=now,
        )

    def lease(self, unit: ReadyUnit, attempt: Attempt, cause: Cause) -> None:
        """Let a ready unit run."""
        check_step(UnitState.READY, UnitState.RUNNING)
        self._leases.append((unit, attempt.worker_id))
        self._new_attempts.append(attempt)
        revision = self.revision(unit.task_id)
        self._entries.append(unit_entry(cause, "unit.state", UnitState.READY, UnitState.RUNNING, unit, revision))

    def add_unit(self, unit: Unit, cause: Cause) -> None:
        """Add a unit to a task, whose counters are the caller's."""
        task = self.task(unit.task_id)
        self._new_units[task is not None and task.state is TaskState.PAUSED].append(unit)
        self._entries.append(unit_entry(cause, "unit.added", None, unit.state, unit, self.revision(unit.task_id)))

    def add_outputs(self, outputs: Collection[Output], impressions: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Add outputs, and what is kept of some for their neighbours' sake, by id."""
        self._new_outputs += outputs
        self._impressions |= impressions

    # --- the end ---------------------------------------------------------------------------------------------

    def write(self, *, epoch: int = 0, expires_at: float = 0.0) -> None:
        """Write all of it.

        Args:
            epoch: of the leases, if there are any.
            expires_at: when they run out.

        Raises:
            RolledBack: a unit is not as it was read; nothing of it happens, and the caller may look again.
        """
        tx = self._tx
        for task_id, old_task in self._old_tasks.items():
            if task_id in self._touched:
                tx.tasks.update(old_task, replace(self._tasks[task_id], updated_at=self._updated_at))
        units = [
            (old, new)
            for old, new in zip(self._old_units.values(), self._units.values(), strict=True)
            if old is not new
        ]
        written = tx.units.update_all(units) + tx.units.lease(self._leases, epoch, expires_at)
        if written != len(units) + len(self._leases):
            raise RolledBack("a unit has changed since it was read")
        tx.attempts.advance(list(self._attempts.values()))
        self._write_new()

    def _write_new(self) -> None:
        tx = self._tx
        for held, new_units in self._new_units.items():
            if new_units:
                tx.units.add(new_units, held=held)
        if self._new_attempts:
            tx.attempts.add(self._new_attempts)
        if self._new_outputs:
            tx.outputs.add(self._new_outputs, self._impressions)
        if self._entries:
            tx.log.add(self._entries)
