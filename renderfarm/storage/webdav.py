"""The object store on Dufs, or another WebDAV server: ``blobs/ab/abcdef…`` by digest, ``outputs/`` by name."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote
from uuid import uuid4

import httpx2
from defusedxml import ElementTree

from renderfarm.errors import FarmUnavailable, NotFound, RenderfarmError
from renderfarm.ports import StoredBlob
from renderfarm.storage.dav_client import COPY_TIMEOUT, DavClient, retries
from renderfarm.storage.disk import CHUNK_BYTES, HashedFile, check_room, checked, disk_errors, write_whole
from renderfarm.storage.location import WebDavLocation
from renderfarm.storage.ranges import open_ranges

#: Bytes that are put again count as new from here on; they need not be sent again at every put.
REFRESH_AFTER_S = 300.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MISSING, _PRECONDITION, _NO_COPY = 404, 412, {405, 501}
_PROPERTIES = b"""<?xml version="1.0" encoding="utf-8"?>
<propfind xmlns="DAV:"><prop><getcontentlength/><getlastmodified/><resourcetype/></prop></propfind>"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A file on the server."""

    size_bytes: int
    age_s: float
    """By the server's clock."""


class WebDavObjects:
    """Implements ``ports.Objects``. Files are sent under a name of their own and moved: whole, or not there at all.

    Many threads may use one of these. Every request may be repeated: what is sent is nobody else's until it is moved.
    """

    def __init__(self, location: WebDavLocation, reserve_bytes: int = 0) -> None:
        """Connect when first needed; ``fetch`` leaves ``reserve_bytes`` of every disk that it writes to."""
        self._location = location
        self._reserve_bytes = reserve_bytes
        self._server = DavClient(location)

    def put(self, source: Path, *, spare: bool = False) -> str:
        with disk_errors(source), HashedFile(source) as file:
            blob = _blob(file.digest)
            known = self._head(blob)
            if known is None or known.size_bytes != file.size_bytes or known.age_s > REFRESH_AFTER_S:
                with self._partial() as partial:
                    self._upload(partial, file)
                    self._move(partial, blob, replace=known is not None)
            return file.digest

    def has(self, digest: str) -> bool:
        return self._head(_blob(digest)) is not None

    def open(self, digest: str) -> BinaryIO:
        known = self._known(digest)
        return open_ranges(known.size_bytes, lambda start, end: self._read(digest, start, end))

    def fetch(self, digest: str, target: Path) -> None:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            check_room(target.parent, target.name, self._known(digest).size_bytes, self._reserve_bytes)
        with self._server.errors():
            for attempt in retries():
                with attempt:
                    write_whole(self._download(digest), target)

    def publish(self, digest: str, name: str) -> None:
        with self._partial() as partial:
            answer = self._server.write(
                "COPY",
                _blob(digest),
                partial,
                headers={"Destination": self._server.url(partial)},
                accept={_MISSING, *_NO_COPY},
                timeout=COPY_TIMEOUT,
            )
            if answer.status_code == _MISSING:
                raise NotFound(f"no object {digest}")
            if answer.status_code in _NO_COPY:
                self._copy(digest, partial)
            self._move(partial, f"outputs/{name}", replace=True)

    def unpublish(self, name: str) -> None:
        self._server.send("DELETE", f"outputs/{name}", accept={_MISSING})

    def blobs(self) -> Iterator[StoredBlob]:
        for folder, _ in self._list("blobs"):
            if len(folder) == 2:
                yield from (blob for _, blob in self._list(f"blobs/{folder}") if blob is not None)

    def remove(self, digest: str) -> None:
        self._server.send("DELETE", _blob(digest), accept={_MISSING})

    def link(self, digest: str, *, name: str, media_type: str, lifetime_s: float) -> str | None:
        return None

    def check(self) -> None:
        with self._partial() as partial:
            self._server.write("PUT", partial, partial, headers={"Content-Length": "0"}, body=lambda: iter(()))
            self._server.send("DELETE", partial)

    def close(self) -> None:
        self._server.close()

    # --- files -----------------------------------------------------------------------------------------------

    def _known(self, digest: str) -> _Known:
        known = self._head(_blob(digest))
        if known is None:
            raise NotFound(f"no object {digest}")
        return known

    def _head(self, path: str) -> _Known | None:
        answer = self._server.send("HEAD", path, accept={_MISSING})
        if answer.status_code == _MISSING:
            return None
        now = answer.headers.get("Date", formatdate(usegmt=True))
        then = answer.headers.get("Last-Modified", formatdate(0, usegmt=True))
        age_s = (parsedate_to_datetime(now) - parsedate_to_datetime(then)).total_seconds()
        return _Known(size_bytes=int(answer.headers["Content-Length"]), age_s=age_s)

    def _read(self, digest: str, start: int, end: int) -> bytes:
        with self._server.errors():
            for attempt in retries():
                with attempt, self._get(digest, {"Range": f"bytes={start}-{end - 1}"}) as answer:
                    if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
                        raise FarmUnavailable(f"the object store {self._location} gives no parts of files")
                    return answer.read()
        raise AssertionError("stamina gives up by raising")

    def _download(self, digest: str) -> Iterator[bytes]:
        with self._get(digest) as answer:
            yield from checked(answer.iter_bytes(CHUNK_BYTES), digest)

    @contextmanager
    def _get(self, digest: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response]:
        with self._server.stream("GET", self._server.url(_blob(digest)), headers=headers) as answer:
            if answer.status_code == _MISSING:
                raise NotFound(f"no object {digest}")
            answer.raise_for_status()
            yield answer

    @contextmanager
    def _partial(self) -> Iterator[str]:
        """Name a file that nobody else knows, and remove it after a failure."""
        partial = f"partial/{uuid4().hex}"
        try:
            yield partial
        except BaseException:
            self._discard(partial)
            raise

    def _discard(self, partial: str) -> None:
        try:
            with self._server.errors():
                self._server.send_once("DELETE", partial, accept={_MISSING})
        except RenderfarmError as error:  # what went wrong before matters more
            log.warning("%s stays in the object store: %s", partial, error)

    def _upload(self, path: str, file: HashedFile) -> None:
        """Send a file, and look only then whether its bytes were the right ones.

        A server may still make the file of a request that breaks off, after it was told to delete it.
        """
        self._server.write("PUT", path, path, headers={"Content-Length": str(file.size_bytes)}, body=file.chunks)
        file.check_sent()

    def _copy(self, digest: str, target: str) -> None:
        """Send a blob once more, by way of this machine's disk: what is damaged is found before anything is sent."""
        with tempfile.TemporaryDirectory() as folder:
            blob = Path(folder) / digest
            self.fetch(digest, blob)
            with HashedFile(blob) as file:
                self._upload(target, file)

    def _move(self, partial: str, target: str, *, replace: bool) -> None:
        headers = {"Destination": self._server.url(target), "Overwrite": "T" if replace else "F"}
        answer = self._server.write("MOVE", partial, target, headers=headers, accept={_MISSING, _PRECONDITION})
        if answer.status_code == _PRECONDITION:  # somebody else has put the same bytes meanwhile
            self._discard(partial)
        # An earlier try may have moved it, and its answer was lost.
        elif answer.status_code == _MISSING and self._head(target) is None:
            raise FarmUnavailable(f"the object store {self._location} has lost what was sent to it")

    def _list(self, folder: str) -> Iterator[tuple[str, StoredBlob | None]]:
        """Yield the names in a folder, the folder's own among them, with the blobs that they are."""
        answer = self._server.send(
            "PROPFIND",
            f"{folder}/",
            headers={"Depth": "1", "Content-Type": "application/xml", "Content-Length": str(len(_PROPERTIES))},
            body=lambda: iter((_PROPERTIES,)),
            accept={_MISSING},
        )
        if answer.status_code == _MISSING:
            return
        try:
            listed = ElementTree.fromstring(answer.content).findall("{DAV:}response")
        except (ElementTree.ParseError, ValueError) as error:
            raise FarmUnavailable(f"the object store {self._location} does not speak WebDAV") from error
        for item in listed:
            name = unquote(item.findtext("{DAV:}href", "").rstrip("/")).rpartition("/")[2]
            size, time = (item.findtext(f".//{{DAV:}}{key}") for key in ("getcontentlength", "getlastmodified"))
            if _DIGEST.fullmatch(name) and size and time:
                stored_at = parsedate_to_datetime(time).timestamp()
                yield name, StoredBlob(digest=name, size_bytes=int(size), stored_at=stored_at)
            else:
                yield name, None


def _blob(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"
