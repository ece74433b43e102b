"""Which workers a node has, and what part of it each of them gets.

A node has as many workers as the settings say, or as many as it has GPUs if those are more. The first of them have a
GPU each, which no other worker sees; what needs none may run there as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Hides the GPUs of a node from whoever has none of them: CUDA and OptiX, HIP, oneAPI. From those who have one, Ray
#: hides the others in the same way. Metal knows no such thing.
NO_GPUS = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "ONEAPI_DEVICE_SELECTOR": "*:cpu"}
#: Cycles uses many threads well, and each worker holds the scene in memory.
_CPUS_PER_WORKER = 8


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """Where a worker is to run, and its part of that node."""

    worker_id: str
    node_id: str
    address: str
    """The node's IP address."""
    cpus: float
    """Whole ones, or a part of one so that all workers find room."""
    node_cpus: float
    gpus: int = 0
    """1: it has one of its own."""
    hides_gpus: bool = False
    """The node has GPUs, and they are others'."""
    workers: int = 1
    """On its node."""
    labels: Mapping[str, str] = field(default_factory=dict)


def worker_places(nodes: Iterable[Mapping[str, Any]], workers: int) -> Iterator[WorkerPlace]:
    """Yield the place of each worker that should run.

    Args:
        nodes: as ``ray.nodes()`` describes them. One without CPUs, a cluster's head for example, is to do no work.
        workers: on each node; 0: by its CPUs.
    """
    taken: set[str] = set()
    for node in sorted(nodes, key=lambda node: str(node["NodeID"])):
        if not node["Alive"] or not node["Resources"].get("CPU"):
            continue
        host = node["NodeManagerHostname"]
        name = host if host not in taken else f"{host}-{node['NodeID'][:6]}"
        taken.add(host)
        cpus, gpus = node["Resources"]["CPU"], int(node["Resources"].get("GPU", 0))
        slots = max(workers or max(1, int(cpus) // _CPUS_PER_WORKER), gpus)
        for slot in range(slots):
            yield WorkerPlace(
                worker_id=f"{name}-{slot}",
                node_id=node["NodeID"],
                address=node["NodeManagerAddress"],
                cpus=_cpu_share(cpus, slots, slot),
                node_cpus=cpus,
                gpus=int(slot < gpus),
                hides_gpus=gpus > 0 and slot >= gpus,
                workers=slots,
                labels=dict(node.get("Labels") or {}),
            )


def _cpu_share(cpus: float, workers: int, slot: int) -> float:
    """Return the CPUs of a worker: as many as of every other, or one more.

    Ray counts in ten-thousandths; rounded down, the parts do not make more than the whole.
    """
    if cpus < workers:
        return int(cpus / workers * 10_000) / 10_000
    return float(int(cpus) * (slot + 1) // workers - int(cpus) * slot // workers)
