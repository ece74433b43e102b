"""The HTTP API as a Ray Serve application: every Ray option is in ``OPTIONS``."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from actors.handles import RayCompute
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, open_farm
from serve_app.app import create_app
from serve_app.uploads import sweep_uploads

APPLICATION = "renderfarm"

#: Every option of Ray's for the API.
OPTIONS: dict[str, Any] = {
    "num_replicas": 1,
    # An open event stream is a request that goes on: the default of 5 would let five people watch.
    "max_ongoing_requests": 1000,
    "max_queued_requests": 200,
    # Blender needs the processors; answering requests takes next to nothing.
    "ray_actor_options": {"num_cpus": 0},
    # Serve asks whether the replica's loop answers. A database that is away is for /readyz to tell: a new
    # replica would not bring it back.
    "health_check_period_s": 5,
    "health_check_timeout_s": 30,
    # A line for each poll of each client would bury what matters.
    "logging_config": {"enable_access_log": False},
    # Event streams do not end by themselves: what is still open after this is cut.
    "graceful_shutdown_wait_loop_s": 0.5,
    "graceful_shutdown_timeout_s": 3,
}


class HttpApi:
    """A replica: opens the farm for itself and serves its API."""

    def __init__(self, settings: Settings) -> None:
        self._farm = open_farm(settings, RayCompute())
        sweep_uploads(settings.data / "uploads")

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this once the replica exists."""
        return create_app(self._farm, send_request_id=False)

    def __del__(self) -> None:
        close_farm(self._farm)


def application(settings: Settings) -> Application:
    """Return the Serve application of a farm, for ``serve.run(…, name=APPLICATION, route_prefix="/")``."""
    deploy = serve.deployment(name="http-api", **OPTIONS)
    app: Application = deploy(serve.ingress()(HttpApi)).bind(settings)
    return app
