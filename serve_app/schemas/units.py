"""Units, their attempts and their outputs on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from renderfarm.domain import models
from renderfarm.domain.frames import format_frames
from renderfarm.domain.parts import part_to_json
from renderfarm.domain.states import AttemptState, UnitState
from serve_app.schemas.common import Error, maybe_moment, moment, percent
from serve_app.schemas.flaws import Flaw


class Attempt(BaseModel):
    """One try of one unit on one worker."""

    number: int
    worker_id: str
    node: str
    blender_version: str | None
    status: AttemptState
    error: Error | None
    render_seconds: float
    peak_memory_bytes: int | None
    devices: list[str] = Field(
        description="What it has really rendered on; empty while nobody knows.", examples=[["OPTIX: NVIDIA H200"]]
    )
    started_at: datetime
    finished_at: datetime | None

    @staticmethod
    def of(attempt: models.Attempt) -> Attempt:
        return Attempt(
            number=attempt.number,
            worker_id=attempt.worker_id,
            node=attempt.node,
            blender_version=attempt.blender_version,
            status=attempt.state,
            error=Error.of(attempt.failure),
            render_seconds=attempt.render_seconds,
            peak_memory_bytes=attempt.peak_memory_bytes,
            devices=list(attempt.devices or ()),
            started_at=moment(attempt.started_at),
            finished_at=maybe_moment(attempt.finished_at),
        )


class Unit(BaseModel):
    """The smallest piece placed on a node."""

    id: str
    kind: models.UnitKind
    position: int
    camera: str | None
    frames: str = Field(description="As a frame range.", examples=["1-3"])
    part: dict[str, int] | None = Field(
        description="What it renders of its frame: a tile, in pixels from the lower left, or a range of samples."
    )
    frames_done: int
    status: UnitState
    attempt: int = Field(description="Number of the latest attempt, 0 before the first.")
    worker_id: str | None
    progress: float = Field(description="0 to 100, with the frame in work.")
    progress_note: str = Field(examples=["Sample 12/64"])
    error: Error | None

    @classmethod
    def of(cls, unit: models.Unit) -> Unit:
        return Unit(**_unit_fields(unit))


class UnitDetail(Unit):
    """A unit with its attempts."""

    attempts: list[Attempt]

    @classmethod
    def with_attempts(cls, unit: models.Unit, attempts: Iterable[models.Attempt]) -> UnitDetail:
        return UnitDetail(attempts=[Attempt.of(attempt) for attempt in attempts], **_unit_fields(unit))


def _unit_fields(unit: models.Unit) -> dict[str, Any]:
    in_work = unit.progress if unit.state is UnitState.RUNNING else 0.0
    return {
        "id": unit.id,
        "kind": unit.kind,
        "position": unit.position,
        "camera": unit.camera,
        "frames": format_frames(unit.frames),
        "part": None if unit.part is None else part_to_json(unit.part),
        "frames_done": unit.frames_done,
        "status": unit.state,
        "attempt": unit.attempt,
        "worker_id": unit.worker_id,
        "progress": percent(unit.frames_done + in_work, len(unit.frames)),
        "progress_note": unit.progress_note,
        "error": Error.of(unit.failure),
    }


class Output(BaseModel):
    """One committed file of a task."""

    id: str
    unit_id: str
    attempt: int
    frame: int
    camera: str | None
    role: models.OutputRole
    name: str = Field(description="Path below the task's output folder.", examples=["Front/0001.png"])
    size_bytes: int
    sha256: str
    media_type: str
    render_seconds: float = Field(description="Of a frame that was split: of all its parts and the merge, added up.")
    committed_at: datetime
    flaws: list[Flaw] = Field(description="What looks wrong with it by itself; `…/flaws` knows its neighbours, too.")
    url: str = Field(description="Path of the bytes.")
    thumbnail_url: str = Field(description="Path of a small picture of it.")

    @staticmethod
    def of(output: models.Output) -> Output:
        return Output(
            id=output.id,
            unit_id=output.unit_id,
            attempt=output.attempt,
            frame=output.frame,
            camera=output.camera,
            role=output.role,
            name=output.name,
            size_bytes=output.size_bytes,
            sha256=output.digest,
            media_type=output.media_type,
            render_seconds=output.render_seconds,
            committed_at=moment(output.committed_at),
            flaws=[Flaw.of(flaw) for flaw in output.flaws or ()],
            url=f"/api/tasks/{output.task_id}/outputs/{output.id}",
            thumbnail_url=f"/api/tasks/{output.task_id}/outputs/{output.id}/thumbnail",
        )
