"""The HTTP API as a plain FastAPI application: no Ray in sight, so tests run it as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Scope

import renderfarm
from renderfarm import ports
from renderfarm.services.health import Readiness
from serve_app import openapi
from serve_app.dependencies import PrincipalOf, local_owner
from serve_app.feed import Feed
from serve_app.middleware import BodyLimit, Envelope, LoopbackOnly
from serve_app.problems import install_problem_handlers
from serve_app.routers import assets, check, dead_letters, events, health, nodes, outputs, pictures, tasks, units
from serve_app.status_reads import StatusReads
from serve_app.uploads import FORM_OVERHEAD_BYTES_MAX

#: JSON that people send is small.
_JSON_BYTES_MAX = 2**20
#: How long a submission waits for the inspection of its asset.
ASSET_WAIT_S = 120.0


def create_app(
    farm: ports.Farm,
    principal_of: PrincipalOf = local_owner,
    *,
    send_request_id: bool = True,
    asset_wait_s: float = ASSET_WAIT_S,
) -> FastAPI:
    """Return the API of a farm.

    Args:
        farm: what the services work on; whoever opened it closes it.
        principal_of: finds out who makes a request.
        send_request_id: answer with ``X-Request-Id``; off behind Ray Serve, whose proxy does.
        asset_wait_s: how long a submission waits while its asset is being inspected.
    """
    # The page's scripts come from here: a farm may have no way out, and its owner's browser no business elsewhere.
    app = FastAPIOffline(
        redoc_url=None,
        title="renderfarm",
        version=renderfarm.__version__,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=openapi.operation_id,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.farm = farm
    app.state.principal_of = principal_of
    app.state.asset_wait_s = asset_wait_s
    # One reader serves every caller, so it is the farm's own; each stream has asked for its caller's rights.
    app.state.feed = Feed(farm)
    app.state.readiness = Readiness(farm)
    app.state.status_reads = StatusReads()
    app.state.makers = CapacityLimiter(pictures.MAKERS)
    # Routes are tried in their order: the status of a task is what is asked for most.
    for module in (tasks, assets, units, outputs, pictures, events, nodes, check, dead_letters, health):
        app.include_router(module.router)
    install_problem_handlers(app)
    openapi.describe(app)
    # The last one added comes first.
    app.add_middleware(BodyLimit, limit_of=_body_limit_of(farm.settings.upload_max_bytes))
    app.add_middleware(LoopbackOnly)
    app.add_middleware(Envelope, send_request_id=send_request_id)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.feed.close()


def _body_limit_of(upload_bytes_max: int) -> Callable[[Scope], int]:
    def limit_of(scope: Scope) -> int:
        is_upload = scope["path"] == assets.UPLOAD_PATH
        return upload_bytes_max + FORM_OVERHEAD_BYTES_MAX if is_upload else _JSON_BYTES_MAX

    return limit_of
