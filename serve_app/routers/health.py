"""Health: for supervisors and load balancers. Nobody has to be anybody to ask."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from renderfarm.services import health
from serve_app.schemas.farm import Alive, Ready

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Tell whether the process answers")
async def get_healthz() -> Alive:
    return Alive()


@router.get(
    "/readyz",
    summary="Tell whether the farm can take and render tasks",
    responses={503: {"model": Ready, "description": "Something the farm needs is missing"}},
)
def get_readyz(request: Request, response: Response) -> Ready:
    """Degraded: something is away that the farm can do without for a while."""
    readiness: health.Readiness = request.app.state.readiness
    found = readiness.check()
    response.status_code = 503 if found.status == "not_ready" else 200
    return Ready(status=found.status, services=dict(found.services))
