"""The one place that turns errors into HTTP answers: problem bodies as RFC 9457 describes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from renderfarm import errors

PROBLEM_MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)
#: Invalid fields that one answer names; more would not help anybody.
_FIELDS_NAMED_MAX = 5


class TooLarge(errors.InvalidInput):
    """The request's body is larger than the farm accepts."""

    code = "too_large"


#: From the special to the general: the first match counts.
STATUS_OF: Mapping[type[errors.RenderfarmError], HTTPStatus] = {
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    # Of an output, whoever asks to see it.
    errors.BadPicture: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.FarmUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

#: ``code`` of the answers that come from the HTTP layer itself.
_CODE_OF = {
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: TooLarge.code,
    416: "range_not_satisfiable",
}


class Problem(BaseModel):
    """What went wrong, for programs (``code``) and for people (``detail``)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "no camera named 'Frnt'; did you mean Front?",
                    "code": "invalid_settings",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="One line, for people.")
    code: str = Field(description="The kind of error, for programs: invalid_frames, not_found, asset_not_ready, …")


def problem_response(status: int, detail: str, code: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a problem as an answer."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)
    return JSONResponse(problem.model_dump(), status, headers, media_type=PROBLEM_MEDIA_TYPE)


def unexpected_response(request_id: str) -> JSONResponse:
    """Return the answer to a request that met a bug: no word of what is inside, only where to look it up."""
    detail = f"the farm met an unexpected error; its log has the details under request {request_id}"
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, detail, "internal")


def install_problem_handlers(app: FastAPI) -> None:
    """Let every error that routes raise become a problem; unexpected ones are left to ``middleware.Envelope``."""
    app.add_exception_handler(errors.RenderfarmError, _on_farm_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that a route may answer with, for its OpenAPI entry."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


async def _on_farm_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.RenderfarmError)
    for kind, status in STATUS_OF.items():
        if isinstance(error, kind):
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                _log.warning("%s %s: %s", request.method, request.url.path, error)
            return problem_response(status, str(error), error.code)
    # LeaseLost, Deposed and whatever comes later have no business here: a bug, whose words are not for strangers.
    raise error


async def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [_invalid_field(item) for item in error.errors()]
    more = f"; and {len(found) - _FIELDS_NAMED_MAX} more" if len(found) > _FIELDS_NAMED_MAX else ""
    detail = "; ".join(found[:_FIELDS_NAMED_MAX]) + more
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors.InvalidInput.code)


def _invalid_field(item: Mapping[str, Any]) -> str:
    """Return ``settings.samples: Input should be a valid integer``, without the place (body, query) it stood in."""
    where = ".".join(str(part) for part in item["loc"][1:])
    if item["type"] == "json_invalid":
        return f"the body is not valid JSON ({item['ctx']['error']})"
    return f"{where or item['loc'][0]}: {errors.without_prefix(item['msg'])}"


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    details = {404: f"no such address: {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    detail = details.get(error.status_code, error.detail)
    code = _CODE_OF.get(error.status_code, "invalid_input" if error.status_code < 500 else "internal")
    return problem_response(error.status_code, detail, code, error.headers)
