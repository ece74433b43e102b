"""What a task's pictures look like: what is wrong with them, thumbnails, a contact sheet, a still that fills in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from renderfarm import ports
from renderfarm.services import derived, flaws, previews, thumbnails
from renderfarm.services.derived import Derived
from serve_app.dependencies import Caller, Farm, Paged
from serve_app.downloads import is_known
from serve_app.problems import problem_responses
from serve_app.schemas.common import Listed, listed
from serve_app.schemas.flaws import FrameFlaw

#: Pictures that a replica makes, and films that it judges, at a time: each takes a core and the memory of a whole
#: picture. Who asks for a picture that is kept waits for none of them.
MAKERS = 2
_SIDES_PX = (16, 2048)
_MEDIA_TYPES = {".webp": "image/webp", ".jpg": "image/jpeg", ".ppm": "image/x-portable-pixmap"}

router = APIRouter(prefix="/api/tasks/{task_id}", tags=["outputs"])


def _answers(*suffixes: str) -> dict[int | str, dict[str, Any]]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {"description": "The picture", "content": {_MEDIA_TYPES[suffix]: schema for suffix in suffixes}},
        304: {"description": "The client has it: `If-None-Match` names its `ETag`"},
        **problem_responses(403, 404, 422, 503, 507),
    }


class ThumbnailQuery(BaseModel):
    """How large a thumbnail is to be."""

    model_config = ConfigDict(extra="forbid")

    side: int = Field(
        default=thumbnails.SIDE_PX, ge=_SIDES_PX[0], le=_SIDES_PX[1], description="The longer side in pixels, at most."
    )


class ContactSheetQuery(BaseModel):
    """Whose frames a contact sheet shows."""

    model_config = ConfigDict(extra="forbid")

    camera: str | None = Field(default=None, max_length=200, description="Absent: the task's first.")


class PreviewQuery(ContactSheetQuery):
    """Which frame to see, and how."""

    frame: int | None = Field(default=None, ge=-(2**31), lt=2**31, description="Absent: the task's first.")
    width: int = Field(default=512, ge=1, le=_SIDES_PX[1], description="In pixels, at most.")
    height: int = Field(default=512, ge=1, le=_SIDES_PX[1], description="In pixels, at most.")
    format: Literal["webp", "ppm"] = "webp"

    def to_look(self) -> previews.Look:
        return previews.Look(
            frame=self.frame,
            camera=self.camera,
            width_px=self.width,
            height_px=self.height,
            suffix=f".{self.format}",
        )


@router.get("/flaws", summary="List what looks wrong", responses=problem_responses(403, 404, 422))
async def list_flaws(request: Request, farm: Farm, caller: Caller, task_id: str, query: Paged) -> Listed[FrameFlaw]:
    """Pictures that are all black, pink from a missing texture, not a number, or unlike their neighbours: hints."""
    page = await run_sync(
        lambda: flaws.list_flaws(farm, caller, task_id, limit=query.limit, offset=query.offset),
        limiter=request.app.state.makers,
    )
    return listed(page, FrameFlaw.of_frame, limit=query.limit, offset=query.offset)


@router.get("/contact-sheet", summary="See all frames at once", response_class=Response, responses=_answers(".jpg"))
async def get_contact_sheet(
    request: Request, farm: Farm, caller: Caller, task_id: str, query: Annotated[ContactSheetQuery, Query()]
) -> Response:
    """The frames so far, their numbers below them; of more than 120, an even choice."""
    return await _answer(request, farm, lambda: thumbnails.contact_sheet_of(farm, caller, task_id, query.camera))


@router.get(
    "/preview", summary="See a frame as far as it is", response_class=Response, responses=_answers(".webp", ".ppm")
)
async def get_preview(
    request: Request, farm: Farm, caller: Caller, task_id: str, query: Annotated[PreviewQuery, Query()]
) -> Response:
    """A frame that is rendered in parts fills in: what is not there yet is dark. `ETag` changes with every part."""
    return await _answer(request, farm, lambda: previews.preview_of(farm, caller, task_id, query.to_look()))


@router.get(
    "/outputs/{output_id}/thumbnail",
    summary="See an output, small",
    response_class=Response,
    responses=_answers(".webp"),
)
async def get_thumbnail(
    request: Request,
    farm: Farm,
    caller: Caller,
    task_id: str,
    output_id: str,
    query: Annotated[ThumbnailQuery, Query()],
) -> Response:
    """In sRGB; linear light is seen through the scene's view, where there is a Blender. Of a movie, its first frame."""
    return await _answer(request, farm, lambda: thumbnails.thumbnail_of(farm, caller, task_id, output_id, query.side))


async def _answer(request: Request, farm: ports.Farm, find: Callable[[], Derived]) -> Response:
    wanted = await run_sync(find)
    etag = f'"{wanted.key}"'
    # Whoever asks again has to be let in again; the ETag keeps that cheap.
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    content = await run_sync(derived.kept, farm, wanted)
    if content is None:
        makers: CapacityLimiter = request.app.state.makers
        content = await run_sync(lambda: derived.made(farm, wanted).read_bytes(), limiter=makers)
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[wanted.suffix])
