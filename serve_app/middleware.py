"""What every request passes before a route sees it, as plain ASGI: streams go through untouched."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.problems import TooLarge, problem_response, unexpected_response

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

#: On every answer: no guessing of media types, no embedding into other sites' pages.
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


class Envelope:
    """Gives each request an id, each answer its common headers, and an unexpected error a plain 500.

    The id is the client's own ``X-Request-Id`` if that is harmless. With ``send_request_id`` off the id is only
    logged: Ray Serve's proxy adds the header itself, and a second one would stand beside it.
    """

    def __init__(self, app: ASGIApp, *, send_request_id: bool) -> None:
        self._app = app
        self._send_request_id = send_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._add_headers(message, request_id)
            await send(message)

        try:
            await self._app(scope, _receive_or_gone(scope, receive), send_with_headers)
        except ClientDisconnect:
            _log.info("%s %s: the client went away, request %s", scope["method"], scope["path"], request_id)
        except Exception:
            _log.exception("%s %s failed unexpectedly, request %s", scope["method"], scope["path"], request_id)
            if started:
                raise  # Half an answer is out: breaking the connection is the only way left to say so.
            await unexpected_response(request_id)(scope, receive, send_with_headers)

    def _add_headers(self, message: Message, request_id: str) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
            headers[name] = value
        if self._send_request_id:
            headers["X-Request-Id"] = request_id


def _receive_or_gone(scope: Scope, receive: Receive) -> Receive:
    """Let a connection that breaks look as ASGI wants it; Ray Serve raises the error of the proxy's death."""

    async def receive_or_gone() -> Message:
        try:
            return await receive()
        except Exception as error:  # noqa: BLE001 - whatever a server says here, the connection is gone
            _log.info("%s %s: lost the connection: %r", scope["method"], scope["path"], error)
            return {"type": "http.disconnect"}

    return receive_or_gone


class LoopbackOnly:
    """Keeps web pages in the owner's browser from driving a farm that has no accounts.

    A page of another site may send requests to 127.0.0.1, but its browser names that site as ``Origin``; a site
    whose name is made to resolve to 127.0.0.1 (DNS rebinding) still stands in ``Host``. Both are refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(403, refusal, "forbidden")(scope, receive, send)


class BodyLimit:
    """Refuses a body that is too long: by its announced length before a byte is read, else once it has grown so."""

    def __init__(self, app: ASGIApp, *, limit_of: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await problem_response(413, _too_large(limit), TooLarge.code)(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # FastAPI lets this kind through while it reads a body, and turns others into a 400.
                raise HTTPException(413, _too_large(limit))
            return message

        await self._app(scope, receive_within_limit, send)


def _too_large(limit: int) -> str:
    return f"the request is larger than {limit} bytes, the most this farm accepts"


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


def _refusal(scope: Scope) -> str | None:
    """Say why a request is refused, or None."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if not _is_loopback(host):
        return f"this farm answers on loopback names only, not on {host[:100]!r}"
    origin = headers.get("origin")
    if scope["method"] not in _SAFE_METHODS and origin is not None and _netloc(origin) != host.lower():
        return f"a page of {origin[:100]!r} may not change anything here"
    return None


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # Neither an address nor a well-formed host.
        return False


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
