"""Health: for supervisors and load balancers. Nobody has to be anybody to ask."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from renderfarm.services import health
from serve_app.dependencies import Farm
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
def get_readyz(farm: Farm, response: Response) -> Ready:
    services = health.check_ready(farm)
    ready = all(state == "ok" for state in services.values())
    response.status_code = 200 if ready else 503
    return Ready(status="ready" if ready else "not_ready", services=services)
