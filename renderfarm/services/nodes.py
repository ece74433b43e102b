"""Nodes and their workers, as the scheduler last saw them."""

from __future__ import annotations

from dataclasses import dataclass

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.domain.blender_versions import version_key
from renderfarm.domain.models import Unit, Worker
from renderfarm.domain.states import UnitState, WorkerState
from renderfarm.ports import Farm


@dataclass(frozen=True, kw_only=True)
class Activity:
    """A worker and what it does."""

    worker: Worker
    unit: Unit | None


def list_workers(farm: Farm, principal: Principal) -> list[Activity]:
    """Return every worker that has not gone, by name, with the unit it works on."""
    authorise(principal, Permission.FARM_READ)
    with farm.database.read() as tx:
        present = [worker for worker in tx.workers.all() if worker.state is not WorkerState.GONE]
        # A worker may have been given several ahead; it names the one that comes first.
        named = tx.units.some([worker.unit_id for worker in present if worker.unit_id is not None])
    at_work = {unit.worker_id: unit for unit in named.values() if unit.state is UnitState.RUNNING}
    return [Activity(worker=worker, unit=at_work.get(worker.id)) for worker in present]


def present_workers(farm: Farm) -> list[Worker]:
    """Return the workers that the scheduler counts on."""
    with farm.database.read() as tx:
        return [worker for worker in tx.workers.all() if worker.state is not WorkerState.GONE]


def available_blenders(farm: Farm) -> tuple[str, ...]:
    """Return the Blender versions of the workers, in the order in which the farm prefers them."""
    versions: dict[str, int] = {}
    for worker in present_workers(farm):
        for rank, version in enumerate(worker.blender_versions):
            versions[version] = min(rank, versions.get(version, rank))
    return tuple(sorted(versions, key=lambda version: (versions[version], [-part for part in version_key(version)])))
