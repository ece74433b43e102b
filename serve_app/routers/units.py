"""Units: the pieces of a task, Blender's output and the script of each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from renderfarm.domain.states import UnitState
from renderfarm.services import progress
from serve_app.dependencies import BIGINT_MAX, Caller, Farm, PageQuery
from serve_app.problems import problem_responses
from serve_app.schemas.common import Listed, listed
from serve_app.schemas.units import Unit, UnitDetail

_LOG_BYTES_MAX = 4 * 2**20
_LOG_HEADERS = {
    "X-Log-Attempt": {"description": "The attempt that this is the log of.", "schema": {"type": "integer"}},
    "X-Log-Offset": {"description": "Where in the log these bytes begin.", "schema": {"type": "integer"}},
    "X-Log-Next-Offset": {"description": "`offset` of the next request.", "schema": {"type": "integer"}},
    "X-Log-Complete": {"description": "The log ends with these bytes.", "schema": {"type": "boolean"}},
}
_LOG_ANSWER = {"description": "Bytes of the log", "headers": _LOG_HEADERS, "content": {"text/plain": {}}}
_SCRIPT_ANSWER = {"description": "The script", "content": {"text/x-python": {"schema": {"type": "string"}}}}
router = APIRouter(prefix="/api/tasks/{task_id}/units", tags=["units"])


class UnitListQuery(PageQuery):
    """Which units to list."""

    status: list[UnitState] = Field(default=[], description="These states only; may be given several times.")


class LogQuery(BaseModel):
    """Which part of Blender's output to read."""

    model_config = ConfigDict(extra="forbid")

    attempt: int | None = Field(default=None, ge=1, lt=2**31, description="Absent: the latest.")
    offset: int = Field(default=0, ge=0, le=BIGINT_MAX, description="Bytes to leave out at the beginning.")
    limit: int = Field(default=2**20, ge=1, le=_LOG_BYTES_MAX, description="The most bytes to return.")
    tail: int | None = Field(default=None, ge=0, le=_LOG_BYTES_MAX, description="The last so many bytes instead.")


@router.get("", summary="List a task's units", responses=problem_responses(403, 404, 422))
def list_units(farm: Farm, caller: Caller, task_id: str, query: Annotated[UnitListQuery, Query()]) -> Listed[Unit]:
    page = progress.list_units(
        farm, caller, task_id, states=tuple(query.status), limit=query.limit, offset=query.offset
    )
    return listed(page, Unit.of, limit=query.limit, offset=query.offset)


@router.get("/{unit_id}", summary="Get a unit with its attempts", responses=problem_responses(403, 404))
def get_unit(farm: Farm, caller: Caller, task_id: str, unit_id: str) -> UnitDetail:
    unit = progress.get_unit(farm, caller, task_id, unit_id)
    return UnitDetail.with_attempts(unit, progress.list_attempts(farm, caller, task_id, unit_id))


@router.get(
    "/{unit_id}/log",
    summary="Read Blender's output",
    response_class=PlainTextResponse,
    responses={200: _LOG_ANSWER, **problem_responses(403, 404, 422, 503)},
)
def read_unit_log(
    farm: Farm, caller: Caller, task_id: str, unit_id: str, query: Annotated[LogQuery, Query()]
) -> Response:
    """Also while it runs: go on reading at `X-Log-Next-Offset` until `X-Log-Complete` is true."""
    part = progress.read_unit_log(
        farm, caller, task_id, unit_id, attempt=query.attempt, offset=query.offset, limit=query.limit, tail=query.tail
    )
    headers = {
        "X-Log-Attempt": str(part.attempt),
        "X-Log-Offset": str(part.offset),
        "X-Log-Next-Offset": str(part.next_offset),
        "X-Log-Complete": str(part.complete).lower(),
        "Cache-Control": "no-store",
    }
    return PlainTextResponse(part.data, headers=headers)


@router.get(
    "/{unit_id}/script",
    summary="Get the unit's script",
    response_class=Response,
    responses={200: _SCRIPT_ANSWER, **problem_responses(403, 404)},
)
def get_unit_script(farm: Farm, caller: Caller, task_id: str, unit_id: str) -> Response:
    """A Python script that gives the same picture when plain Blender runs it."""
    script = progress.unit_script_of(farm, caller, task_id, unit_id)
    # The id is known by now, so it is one that the farm made: safe in a header.
    headers = {"Content-Disposition": f'inline; filename="unit-{unit_id}.py"'}
    return Response(script, headers=headers, media_type="text/x-python")
