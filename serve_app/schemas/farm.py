"""The farm itself on the wire: nodes, workers, health."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from renderfarm.domain.frames import format_frames
from renderfarm.domain.states import WorkerState
from renderfarm.services.nodes import Activity
from serve_app.schemas.common import maybe_moment, moment


class Worker(BaseModel):
    """One slot on a node."""

    id: str
    status: WorkerState
    pid: int = Field(description="Its process on the node.")
    blender_versions: list[str]
    threads: int
    gpus: int = Field(description="Its own; no other worker sees them.")
    task_id: str | None = Field(description="Task of the unit it works on; none while it inspects an upload.")
    unit_id: str | None
    frames: str | None = Field(description="Frames of that unit.", examples=["1-3"])
    progress: float | None = Field(description="Of the frame in work, 0 to 100.")
    note: str | None = Field(description="What Blender is doing.", examples=["Sample 12/64"])
    open_scene: str | None = Field(description="Asset whose scene its Blender holds open.")
    set_aside_until: datetime | None
    set_aside_reason: str | None
    last_seen_at: datetime

    @staticmethod
    def of(activity: Activity) -> Worker:
        worker, unit = activity.worker, activity.unit
        return Worker(
            id=worker.id,
            # The unit is fresher than what the scheduler last wrote down about the worker.
            status=WorkerState.BUSY if unit else WorkerState.IDLE,
            pid=worker.pid,
            blender_versions=list(worker.blender_versions),
            threads=worker.threads,
            gpus=worker.gpus,
            task_id=unit.task_id if unit else None,
            unit_id=unit.id if unit else None,
            frames=format_frames(unit.frames) if unit else None,
            progress=round(100 * unit.progress, 2) if unit else None,
            note=unit.progress_note if unit else None,
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
    gpus: int = Field(description="Of all its workers.")
    memory_bytes: int = Field(description="What its workers share.")
    workers: list[Worker]


class Nodes(BaseModel):
    items: list[Node]

    @staticmethod
    def of(activities: Iterable[Activity]) -> Nodes:
        """Group workers by their nodes, which know nothing of their own: a node is what its workers tell."""
        nodes: dict[str, Node] = {}
        for activity in sorted(activities, key=lambda activity: (activity.worker.node, activity.worker.id)):
            worker = activity.worker
            node = nodes.setdefault(
                worker.node,
                Node(
                    node=worker.node,
                    address=worker.address,
                    labels=worker.labels,
                    gpus=0,
                    memory_bytes=worker.memory_bytes,
                    workers=[],
                ),
            )
            node.gpus += worker.gpus
            node.workers.append(Worker.of(activity))
        return Nodes(items=list(nodes.values()))


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Whether the farm can take and render tasks."""

    status: Literal["ready", "degraded", "not_ready"]
    services: dict[str, str] = Field(description="Each service: `ok`, or why not.", examples=[{"database": "ok"}])
