"""The OpenAPI page: what FastAPI finds out by itself, and the problem body that every error has."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from serve_app.problems import Problem, problem_responses
from serve_app.schemas.log import Event

DESCRIPTION = """
Renders Blender scenes: upload a scene (`POST /api/assets`), submit a task (`POST /api/tasks`), follow it
(`…/status`, `…/events`), see it (`…/contact-sheet`, `…/preview`, `…/flaws`), fetch its outputs (`…/outputs`).

Errors are `application/problem+json` (RFC 9457) with a `code` for programs and one line of `detail` for people.
Times are ISO 8601 in UTC; what does not exist is null.
"""

TAGS = [
    {"name": "assets", "description": "Uploaded, immutable, versioned scenes."},
    {"name": "tasks", "description": "What to render, and how far it is."},
    {"name": "units", "description": "The pieces of a task, as nodes render them."},
    {"name": "outputs", "description": "The pictures, and what they look like."},
    {"name": "events", "description": "Changes as they come, as server-sent events."},
    {"name": "farm", "description": "The farm's machines."},
    {"name": "health", "description": "For supervisors and load balancers."},
]


def operation_id(route: APIRoute) -> str:
    """Name operations as their functions: clients are generated from these."""
    return route.name


def describe(app: FastAPI) -> None:
    """Let the page hold the schemas that no return type mentions, and the answer that every route may give."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate())  # FastAPI keeps the page, so this is done once.
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(page: dict[str, Any]) -> None:
    schemas = page["components"]["schemas"]
    for model in (Problem, Event):
        schemas[model.__name__] = model.model_json_schema()
    # FastAPI's own error body, which this API never sends: routes that can find a request invalid say so themselves.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    unexpected = problem_responses(500)[500]
    for path in page["paths"].values():
        for operation in path.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
            operation["responses"]["500"] = unexpected
