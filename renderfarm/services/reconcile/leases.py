"""The database against the workers: who works on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from renderfarm.domain.leases import Lease
from renderfarm.domain.models import Unit
from renderfarm.domain.states import UnitState, WorkerState
from renderfarm.services.journal import unit_entry
from renderfarm.services.placement import take_back
from renderfarm.services.reconcile.findings import REPAIRED, Finding, Kind, Look, Subject

_Held = Mapping[str, tuple[Lease, ...]]


def held_leases(look: Look) -> _Held:
    """Return what each worker that answers works on."""
    held = look.farm.compute.leases()
    look.counts["workers"] += len(held)
    return held


def find_orphaned(look: Look) -> Iterator[Finding]:
    """Yield running units whose lease has run out, and that nobody has taken back."""
    with look.farm.database.read() as tx:
        late = tx.units.expired(look.at)
    for unit in late:
        ago_s = look.at - (unit.lease_expires_at or 0.0)
        yield Finding(
            kind=Kind.ORPHANED_LEASE,
            subject=Subject(task_id=unit.task_id, unit_id=unit.id, attempt=unit.attempt, worker_id=unit.worker_id),
            detail=f"unit {unit.id} runs on {unit.worker_id}, but its lease ran out {ago_s:.0f} s ago",
        )


def find_unknown_to_workers(look: Look) -> Iterator[Finding]:
    """Yield running units whose worker answers and knows nothing of them, or is gone."""
    held = look.once(held_leases)
    with look.farm.database.read() as tx:
        leases = tx.units.leases()
        present = {worker.id for worker in tx.workers.all() if worker.state is not WorkerState.GONE}
    look.counts["running_units"] += len(leases)
    for lease in leases:
        why = _why_unknown(lease, held, present)
        if why is not None:
            detail = f"unit {lease.unit_id} runs on {lease.worker_id}, {why}"
            yield Finding(kind=Kind.UNKNOWN_TO_WORKERS, subject=_subject_of(lease), detail=detail)


def _why_unknown(lease: Lease, held: _Held, present: set[str]) -> str | None:
    if lease.worker_id in held:
        return None if lease in held[lease.worker_id] else "which answers and does not work on it"
    # One that is only silent may be at work: its lease decides.
    return None if lease.worker_id in present else "which is gone"


def end_attempt(look: Look, finding: Finding) -> bool:
    """Fail the attempt as lost, so that the unit is tried again free of charge; unless it has moved on."""
    unit_id = finding.subject.unit_id or ""
    with look.farm.database.read() as tx:
        unit = tx.units.get(unit_id)
    if unit is None or (unit.state, unit.attempt) != (UnitState.RUNNING, finding.subject.attempt):
        return True
    cause = look.cause(finding.detail)
    if finding.kind is Kind.ORPHANED_LEASE and (unit.lease_expires_at or 0.0) >= cause.at:
        return True  # renewed after all
    if take_back(look.farm, unit, f"a check found that {finding.detail}", look.epoch, look.actor):
        with look.write() as tx:
            tx.log.add([unit_entry(cause, REPAIRED, None, finding.kind, unit, None)])
        look.farm.compute.wake()
    return True


def find_unknown_to_database(look: Look) -> Iterator[Finding]:
    """Yield leases that a worker holds although the database has moved on from them."""
    held = [lease for leases in look.once(held_leases).values() for lease in leases]
    with look.farm.database.read() as tx:
        units = tx.units.some([lease.unit_id for lease in held])
    for lease in held:
        unit = units.get(lease.unit_id)
        if not _stands(lease, unit):
            place = "does not exist" if unit is None else f"is {unit.state} with attempt {unit.attempt}"
            detail = f"{lease.worker_id} works on attempt {lease.attempt} of unit {lease.unit_id}, which {place}"
            yield Finding(kind=Kind.UNKNOWN_TO_DATABASE, subject=_subject_of(lease), detail=detail)


def _stands(lease: Lease, unit: Unit | None) -> bool:
    """Tell whether a worker may have the lease: it runs, or it has succeeded and its worker still tidies up."""
    if unit is None or (unit.attempt, unit.epoch) != (lease.attempt, lease.epoch):
        return False
    return unit.state in (UnitState.RUNNING, UnitState.SUCCEEDED)


def let_scheduler_cancel(look: Look, finding: Finding) -> bool:
    """Wake the scheduler, which stops what nobody wants; tell whether the worker has let go."""
    subject = finding.subject

    def has_let_go() -> bool:
        leases = look.farm.compute.leases().get(subject.worker_id or "", ())
        return all((lease.unit_id, lease.attempt) != (subject.unit_id, subject.attempt) for lease in leases)

    return look.comes_true(has_let_go)


def _subject_of(lease: Lease) -> Subject:
    return Subject(task_id=lease.task_id, unit_id=lease.unit_id, attempt=lease.attempt, worker_id=lease.worker_id)
