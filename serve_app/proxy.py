"""What Ray Serve's own HTTP proxy is to do with a request before it looks at it."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

#: Name of this in Ray's settings: the proxy calls it for its middlewares when it starts.
CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "serve_app.proxy.middlewares"

#: Headers by which a client would set Serve's own timeouts, or make it render for nobody.
_DROPPED = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})


class DropServeHeaders:
    """Takes away the headers that are meant for Serve: how long a request may take is for the farm to say.

    Serve reads them before a replica sees the request, so this has to run in the proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            kept = [(name, value) for name, value in scope["headers"] if name.lower() not in _DROPPED]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Return the middlewares of Serve's proxy, as ``CALLBACK`` of ``CALLBACK_VARIABLE``."""
    return [Middleware(DropServeHeaders)]
