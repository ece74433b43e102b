"""Outputs: what a task has rendered."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from renderfarm.services import outputs
from serve_app.dependencies import Caller, Farm, Paged
from serve_app.downloads import output_response
from serve_app.problems import problem_responses
from serve_app.schemas.common import Listed, listed
from serve_app.schemas.units import Output

_BYTES = {"description": "The file", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _BYTES,
    206: {**_BYTES, "description": "The part that `Range` asked for"},
    307: {"description": "To a GET, where the farm gives out links: the file is at `Location`, for some minutes"},
    304: {"description": "The client has it: `If-None-Match` names its SHA-256"},
    **problem_responses(403, 404, 416, 503),
}
router = APIRouter(prefix="/api/tasks/{task_id}/outputs", tags=["outputs"])


@router.get("", summary="List a task's outputs", responses=problem_responses(403, 404, 422))
def list_outputs(farm: Farm, caller: Caller, task_id: str, query: Paged) -> Listed[Output]:
    page = outputs.list_outputs(farm, caller, task_id, limit=query.limit, offset=query.offset)
    return listed(page, Output.of, limit=query.limit, offset=query.offset)


@router.head(
    "/{output_id}",
    operation_id="head_output",
    summary="Look at an output's headers",
    response_class=Response,
    responses=_ANSWERS,
)
@router.get("/{output_id}", summary="Download an output", response_class=Response, responses=_ANSWERS)
def download_output(request: Request, farm: Farm, caller: Caller, task_id: str, output_id: str) -> Response:
    """The file's bytes, or where they are. `ETag` is their SHA-256."""
    output = outputs.get_output(farm, caller, task_id, output_id)
    return output_response(
        request,
        output,
        link=lambda: outputs.output_link(farm, output),
        open_blob=lambda: outputs.open_output(farm, output),
    )
