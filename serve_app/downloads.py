"""Sending a blob: streamed, resumable (RFC 9110, one range) and not sent again to whom has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from renderfarm.domain.models import Output

_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._ -]", re.ASCII)
_DIGITS_MAX = 18


def output_response(
    request: Request, output: Output, *, link: Callable[[], str | None], open_blob: Callable[[], BinaryIO]
) -> Response:
    """Answer a GET or HEAD of an output, from the farm or by a link to the object store, if there is one.

    Raises:
        HTTPException: 416, the range lies outside the file.
    """
    response = _bodiless_response(request, output)
    if response is not None:
        return response
    url = link()
    if url is not None:
        # Whoever may follow it may read the file, until it runs out: nobody is to keep it.
        return RedirectResponse(url, 307, {"Cache-Control": "no-store"})
    start, stop = _wanted_range(request, output)
    headers = _headers(output) | {"Content-Length": str(stop - start)}
    if stop - start < output.size_bytes:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{output.size_bytes}"
    blob = open_blob()
    try:
        blob.seek(start)
    except BaseException:
        blob.close()
        raise
    status = 206 if "Content-Range" in headers else 200
    return _BlobResponse(blob, stop - start, status, headers, output.media_type)


class _BlobResponse(StreamingResponse):
    """Streams a part of a file, and closes it even if the client has gone before the first byte."""

    def __init__(self, blob: BinaryIO, size: int, status: int, headers: dict[str, str], media_type: str) -> None:
        super().__init__(_chunks(blob, size), status, headers, media_type)
        self._blob = blob

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._blob.close()


def _chunks(blob: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = blob.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise EOFError(f"the blob ends {size} bytes early")
        size -= len(chunk)
        yield chunk


def _headers(output: Output) -> dict[str, str]:
    return {
        "ETag": _etag(output),
        # Whoever asks again has to be let in again; the ETag keeps that cheap.
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
        "Content-Disposition": _disposition(output.name),
    }


def _etag(output: Output) -> str:
    return f'"{output.digest}"'


def _disposition(name: str) -> str:
    """Name the file without its folder, in ASCII for old clients and in full for the others (RFC 6266)."""
    base = name.rpartition("/")[2]
    return f"inline; filename=\"{_UNSAFE.sub('_', base)}\"; filename*=UTF-8''{quote(base, safe='')}"


def is_known(request: Request, etag: str) -> bool:
    """Tell whether whoever asks has what an entity tag stands for."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in known or etag in known


def _bodiless_response(request: Request, output: Output) -> Response | None:
    if is_known(request, _etag(output)):
        return Response(status_code=304, headers=_headers(output))
    if request.method == "HEAD":
        headers = _headers(output) | {"Content-Length": str(output.size_bytes)}
        return Response(headers=headers, media_type=output.media_type)
    return None


def _wanted_range(request: Request, output: Output) -> tuple[int, int]:
    """Return start and end (exclusive) of what to send: all of it, unless one well-formed range is asked for."""
    whole = (0, output.size_bytes)
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", _etag(output)) != _etag(output):
        return whole
    first, last = match.groups()
    if not (first or last) or max(len(first), len(last)) > _DIGITS_MAX:
        return whole
    if first:
        start, stop = int(first), min(int(last) + 1 if last else output.size_bytes, output.size_bytes)
        if last and int(last) < int(first):
            return whole
    else:
        start, stop = max(0, output.size_bytes - int(last)), output.size_bytes
    if start >= stop:
        raise HTTPException(416, "the range lies outside the file", {"Content-Range": f"bytes */{output.size_bytes}"})
    return start, stop
