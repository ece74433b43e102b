"""Servers for tests of the object store: moto's S3 and WsgiDAV, both over HTTP, and what lies in them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from cheroot.wsgi import Server as CherootServer
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from wsgidav.wsgidav_app import WsgiDAVApp

from renderfarm.ports import Objects
from renderfarm.storage import FolderObjects, S3Location, WebDavLocation, WebDavObjects, parse_storage_url
from renderfarm.storage.s3 import S3Objects

USER, PASSWORD = "farm", "p%40ss%2Fw:rd"
_DECODED = "p@ss/w:rd"
KEY, SECRET = "AKIDTEST", "se%2Fcret"


class Store(Protocol):
    """An object store, and a look behind it."""

    @property
    def objects(self) -> Objects: ...
    def names(self) -> set[str]:
        """Return the name of everything that lies in the store."""

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, content: bytes) -> None: ...
    def age(self, name: str, by_s: float) -> None:
        """Let it have been stored so long ago."""


class DiskStore:
    """A store whose files lie on this disk."""

    def __init__(self, objects: Objects, root: Path) -> None:
        self.objects = objects
        self.root = root

    def names(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.root / name).unlink(missing_ok=True)
        (self.root / name).write_bytes(content)

    def age(self, name: str, by_s: float) -> None:
        then = time.time() - by_s
        os.utime(self.root / name, (then, then))


class S3Store:
    """A store in moto."""

    objects: S3Objects

    def __init__(self, url: str) -> None:
        location = parse_storage_url(url)
        assert isinstance(location, S3Location)
        self.objects = S3Objects(location)
        self.url = url
        self.bucket, self._prefix = location.bucket, location.prefix

    def names(self) -> set[str]:
        return {name.removeprefix(self._prefix) for name in self._bucket().keys}

    def read(self, name: str) -> bytes:
        content: bytes = self._bucket().keys[self._prefix + name].value
        return content

    def write(self, name: str, content: bytes) -> None:
        self.objects.client.put_object(Bucket=self.bucket, Key=self._prefix + name, Body=content)

    def age(self, name: str, by_s: float) -> None:
        then = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=by_s)
        self._bucket().keys[self._prefix + name].last_modified = then

    def multiparts(self) -> list[Any]:
        """Return the uploads that have begun and not ended."""
        return list(self._bucket().multiparts)

    def _bucket(self) -> Any:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[self.bucket]


@contextmanager
def folder_store(folder: Path) -> Iterator[DiskStore]:
    objects = FolderObjects(folder / "objects")
    yield DiskStore(objects, folder / "objects")
    objects.close()


# --- S3 ------------------------------------------------------------------------------------------------------


@contextmanager
def moto_server() -> Iterator[str]:
    """Start a server that speaks S3; yield its host and port."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_store(address: str, options: str = "") -> Iterator[S3Store]:
    """Make a bucket of its own."""
    bucket = f"farm-{uuid4().hex[:12]}"
    store = S3Store(f"s3://{KEY}:{SECRET}@{address}/{bucket}/some/prefix?secure=false{options}")
    store.objects.client.create_bucket(Bucket=bucket)
    yield store
    store.objects.close()


# --- WebDAV --------------------------------------------------------------------------------------------------

Fault = Callable[[str, str], HTTPStatus | bytes | None]
"""Given method and path, tells what to answer instead of the truth: a status, or a body."""


class DavServer:
    """WsgiDAV with a user, on a free port."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before: Fault = _no_fault
        """Asked before the server does anything."""
        self.after: Fault = _no_fault
        """Asked when the server has done it: the answer is lost."""
        self.requests: list[tuple[str, str]] = []
        self._app = WsgiDAVApp(
            {
                "provider_mapping": {"/": str(root)},
                "simple_dc": {"user_mapping": {"*": {USER: {"password": _DECODED}}}},
                "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
                "lock_storage": None,
                "property_manager": None,
                "dir_browser": {"enable": False},
                "verbose": 0,
                "logging": {"enable": False},
            }
        )
        self._server = CherootServer(("127.0.0.1", 0), self._answer, numthreads=10)
        self._server.prepare()
        self.address = f"127.0.0.1:{self._server.bind_addr[1]}"
        self._thread = threading.Thread(target=self._server.serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@{self.address}"

    def close(self) -> None:
        self._server.stop()
        self._thread.join(10)

    def heal(self) -> None:
        """Plant no more faults."""
        self.before = self.after = _no_fault
        self.requests.clear()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = self.before(method, path)
        if fault is not None:
            while environ["wsgi.input"].read(1 << 20):
                pass
            return _planted(fault, start_response)
        fault = self.after(method, path)
        if fault is None:
            return self._app(environ, start_response)
        for _ in self._app(environ, lambda *_: None):
            pass
        return _planted(fault, start_response)


def _no_fault(method: str, path: str) -> HTTPStatus | None:
    return None


def _planted(fault: HTTPStatus | bytes, start_response: Any) -> list[bytes]:
    status, body = (HTTPStatus.OK, fault) if isinstance(fault, bytes) else (fault, b"")
    start_response(f"{status.value} {status.phrase}", [("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def webdav_server(root: Path) -> Iterator[DavServer]:
    """Start a WebDAV server for a folder."""
    server = DavServer(root)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def webdav_store(server: DavServer) -> Iterator[DiskStore]:
    """Take a folder of its own, which is not there yet."""
    folder = uuid4().hex
    location = parse_storage_url(f"{server.url}/{folder}/Größe 1")
    assert isinstance(location, WebDavLocation)
    objects = WebDavObjects(location)
    yield DiskStore(objects, server.root / folder / "Größe 1")
    objects.close()
    server.heal()
