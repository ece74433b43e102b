"""The farm itself on the wire: nodes, workers, health."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from renderfarm.domain import models
from renderfarm.domain.states import WorkerState
from serve_app.schemas.common import maybe_moment, moment


class Worker(BaseModel):
    """One slot on a node."""

    id: str
    status: WorkerState
    blender_versions: list[str]
    threads: int
    unit_id: str | None
    open_scene: str | None = Field(description="Asset whose scene its Blender holds open.")
    set_aside_until: datetime | None
    set_aside_reason: str | None
    last_seen_at: datetime

    @staticmethod
    def of(worker: models.Worker) -> Worker:
        return Worker(
            id=worker.id,
            status=worker.state,
            blender_versions=list(worker.blender_versions),
            threads=worker.threads,
            unit_id=worker.unit_id,
            open_scene=worker.open_scene,
            set_aside_until=maybe_moment(worker.set_aside_until),
            set_aside_reason=worker.set_aside_reason,
            last_seen_at=moment(worker.last_seen_at),
        )


class Node(BaseModel):
    """One machine of the farm."""

    node: str
    address: str
    labels: dict[str, str]
    gpus: int
    memory_bytes: int
    workers: list[Worker]


class Nodes(BaseModel):
    items: list[Node]

    @staticmethod
    def of(workers: Iterable[models.Worker]) -> Nodes:
        """Group workers by their nodes, which know nothing of their own: a node is what its workers tell."""
        nodes: dict[str, Node] = {}
        for worker in sorted(workers, key=lambda worker: (worker.node, worker.id)):
            node = nodes.setdefault(
                worker.node,
                Node(
                    node=worker.node,
                    address=worker.address,
                    labels=worker.labels,
                    gpus=worker.gpus,
                    memory_bytes=worker.memory_bytes,
                    workers=[],
                ),
            )
            node.workers.append(Worker.of(worker))
        return Nodes(items=list(nodes.values()))


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Whether the farm can take and render tasks."""

    status: Literal["ready", "not_ready"]
    services: dict[str, str] = Field(description="Each service: `ok`, or why not.", examples=[{"database": "ok"}])
