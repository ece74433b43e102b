"""Tasks on the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from renderfarm.domain import models
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.states import TaskState
from serve_app.schemas.common import Error, maybe_moment, moment, percent


class Task(BaseModel):
    """What a user asked for, and how far it is."""

    id: str
    project_id: str
    owner: str
    name: str
    asset_id: str
    settings: RenderSettings
    priority: int
    status: TaskState
    progress: float = Field(description="0 to 100.")
    frames_total: int = Field(description="Frames times cameras.")
    frames_done: int
    units_total: int
    units_failed: int
    render_seconds: float = Field(description="Sum over all finished frames.")
    cold: bool = Field(description="A warm frame was wrong: nothing is kept between this task's frames any more.")
    error: Error | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    revision: int = Field(description="Rises with every change of the task or its units.")

    @staticmethod
    def of(task: models.Task) -> Task:
        return Task(
            id=task.id,
            project_id=task.project_id,
            owner=task.owner,
            name=task.name,
            asset_id=task.asset_id,
            settings=task.settings,
            priority=task.priority,
            status=task.state,
            progress=percent(task.frames_done, task.frames_total),
            frames_total=task.frames_total,
            frames_done=task.frames_done,
            units_total=task.units_total,
            units_failed=task.units_failed,
            render_seconds=task.render_seconds,
            cold=task.cold,
            error=Error.of(task.failure),
            created_at=moment(task.created_at),
            started_at=maybe_moment(task.started_at),
            finished_at=maybe_moment(task.finished_at),
            updated_at=moment(task.updated_at),
            revision=task.revision,
        )


class Status(BaseModel):
    """How far a task is: small and cheap, for polling."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_id": "01hzy3v9q6m1",
                    "status": "running",
                    "progress": 41.7,
                    "frames_done": 10,
                    "frames_total": 24,
                    "eta_seconds": 63.5,
                    "error": None,
                    "revision": 31,
                }
            ]
        }
    )

    task_id: str
    status: TaskState
    progress: float = Field(description="0 to 100, with the frames in work.")
    frames_done: int
    frames_total: int
    eta_seconds: float | None = Field(description="Null while nobody can tell.")
    error: Error | None
    revision: int

    @staticmethod
    def of(status: models.TaskStatus) -> Status:
        return Status(
            task_id=status.task_id,
            status=status.status,
            progress=status.progress,
            frames_done=status.frames_done,
            frames_total=status.frames_total,
            eta_seconds=status.eta_s,
            error=Error.of(status.failure),
            revision=status.revision,
        )
