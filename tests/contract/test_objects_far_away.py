"""What stores behind a network promise beyond the contract: faults, wrong keys, and what travels on the wire."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
import stamina
from boto3.session import Session
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from renderfarm.errors import FarmUnavailable, NotFound, StorageFull
from renderfarm.ports import Objects
from renderfarm.settings import Settings
from renderfarm.storage import S3Location, WebDavObjects, parse_storage_url
from renderfarm.storage.s3 import S3Objects
from renderfarm.wiring import close_farm, open_farm, prepare_farm
from tests.object_servers import (
    KEY,
    PASSWORD,
    SECRET,
    DavServer,
    DiskStore,
    S3Store,
    moto_server,
    s3_store,
    webdav_server,
    webdav_store,
)
from tests.unit.fakes import FakeCompute

MISSING = "0" * 64
#: Nobody should have to wait longer to learn that a server is away.
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _without_waits() -> Iterator[None]:
    """Try again as often as ever, but at once."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture
def s3(moto: str) -> Iterator[S3Store]:
    with s3_store(moto) as store:
        yield store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    with webdav_server(tmp_path_factory.mktemp("dav")) as server:
        yield server


@pytest.fixture
def webdav(server: DavServer) -> Iterator[DiskStore]:
    with webdav_store(server) as store:
        yield store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"picture")
    return path


def objects_at(url: str) -> Objects:
    location = parse_storage_url(url)
    return S3Objects(location) if isinstance(location, S3Location) else WebDavObjects(location)


def calls_of(objects: Objects, source: Path) -> list[Callable[[], object]]:
    return [
        lambda: objects.put(source),
        lambda: objects.has(MISSING),
        lambda: objects.open(MISSING),
        lambda: objects.fetch(MISSING, source.with_name("target")),
        lambda: objects.publish(MISSING, "task/0001.png"),
        lambda: list(objects.blobs()),
        objects.check,
    ]


# --- both ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://{key}:{secret}@{at}/bucket?secure=false", "http://{key}:{secret}@{at}/folder"])
def test_a_server_that_is_away(url: str, source: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        objects = objects_at(url.format(key=KEY, secret=SECRET, at=address))
        for call in (lambda: objects.put(source), objects.check):
            started = time.monotonic()
            with pytest.raises(FarmUnavailable, match=f"{address}.* does not answer") as caught:
                call()
            assert time.monotonic() - started < PATIENCE_S
            assert "cret" not in str(caught.value)
            assert "\n" not in str(caught.value)
        objects.close()


@pytest.mark.parametrize("url", ["s3://{key}:{secret}@{at}/bucket?secure=false", "http://{key}:{secret}@{at}/folder"])
def test_a_farm_opens_while_its_store_is_away(url: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(data=tmp_path, storage_url=url.format(key=KEY, secret=SECRET, at=at))
        close_farm(prepare_farm(settings, FakeCompute()))
        farm = open_farm(settings, FakeCompute())
        with pytest.raises(FarmUnavailable, match=r"the object store http://127\.0\.0\.1"):
            farm.objects.has(MISSING)
        close_farm(farm)


def test_room_is_left_on_the_disk_that_is_fetched_to(s3: S3Store, webdav: DiskStore, source: Path) -> None:
    location = parse_storage_url(s3.url)
    assert isinstance(location, S3Location)
    assert isinstance(webdav.objects, WebDavObjects)
    greedy = (
        S3Objects(location, reserve_bytes=1 << 62),
        WebDavObjects(webdav.objects._location, reserve_bytes=1 << 62),
    )
    for objects in greedy:
        digest = objects.put(source)
        with pytest.raises(StorageFull, match="kept for the farm's own records"):
            objects.fetch(digest, source.with_name("target"))
        assert not source.with_name("target").exists()
        objects.close()


def test_half_a_blob_is_put_again(s3: S3Store, webdav: DiskStore, source: Path) -> None:
    for store in (s3, webdav):
        digest = store.objects.put(source)
        store.write(f"blobs/{digest[:2]}/{digest}", b"pict")
        store.objects.put(source)
        assert store.read(f"blobs/{digest[:2]}/{digest}") == b"picture"


# --- S3 ------------------------------------------------------------------------------------------------------


def on(store: S3Store, operation: str, act: Callable[[Any], object]) -> None:
    """Let ``act`` see each request of an operation before it is sent; what it returns is the answer."""
    store.objects.client.meta.events.register_first(f"before-send.s3.{operation}", lambda request, **_: act(request))


class _Raw(BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def answer(request: Any, status: int, body: bytes = b"") -> AWSResponse:
    return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body))


def refusal(status: int, code: str) -> Callable[[Any], AWSResponse]:
    body = f"<Error><Code>{code}</Code><Message>as planted</Message></Error>".encode()
    return lambda request: answer(request, status, body)


def test_a_big_file_goes_in_parts_that_the_server_checks(s3: S3Store, source: Path) -> None:
    content = os.urandom(20 << 20)
    source.write_bytes(content)
    signed = []
    on(s3, "UploadPart", lambda request: signed.append(_header(request, "X-Amz-Content-SHA256")))
    digest = s3.objects.put(source)
    parts = [content[start : start + (8 << 20)] for start in range(0, len(content), 8 << 20)]
    assert sorted(signed) == sorted(hashlib.sha256(part).hexdigest() for part in parts)
    head = s3.objects.client.head_object(Bucket=s3.bucket, Key=f"some/prefix/blobs/{digest[:2]}/{digest}")
    assert head["ETag"].endswith('-3"')
    assert s3.multiparts() == []
    s3.objects.publish(digest, "task/all.exr")
    assert s3.read("outputs/task/all.exr") == content


def _header(request: Any, name: str) -> str:
    value = request.headers[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def test_small_files_are_signed_over_https_too_and_travel_as_they_are(source: Path) -> None:
    """Alibaba and Tencent refuse checksums that come behind the body."""
    objects = objects_at(f"s3://{KEY}:{SECRET}@oss-cn-hangzhou.aliyuncs.com/scenes?region=cn-hangzhou")
    assert isinstance(objects, S3Objects)
    seen: list[Any] = []
    events = objects.client.meta.events
    events.register_first("before-send.s3.HeadObject", lambda request, **_: refusal(404, "NotFound")(request))

    def stored(request: Any, **_: Any) -> AWSResponse:
        seen.append(request)
        return answer(request, 200)

    events.register_first("before-send.s3.PutObject", stored)
    digest = objects.put(source)
    (request,) = seen
    assert request.url == f"https://scenes.oss-cn-hangzhou.aliyuncs.com/blobs/{digest[:2]}/{digest}"
    assert _header(request, "X-Amz-Content-SHA256") == digest
    assert not {name.lower() for name in request.headers} & {"x-amz-trailer", "content-encoding", "transfer-encoding"}
    objects.close()


def test_a_server_may_be_told_the_checksum_to_keep(moto: str, source: Path) -> None:
    with s3_store(moto, "&checksum=sha256") as store:
        seen: list[str] = []
        on(store, "PutObject", lambda request: seen.append(_header(request, "x-amz-checksum-sha256")))
        digest = store.objects.put(source)
        assert len(seen) == 1
        assert store.read(f"blobs/{digest[:2]}/{digest}") == b"picture"


def test_an_upload_that_breaks_leaves_nothing(s3: S3Store, source: Path) -> None:
    def broken(request: Any) -> None:
        if "partNumber=3" in request.url:
            raise ConnectionResetError("planted")

    source.write_bytes(os.urandom(20 << 20))
    on(s3, "UploadPart", broken)
    with pytest.raises(FarmUnavailable):
        s3.objects.put(source)
    assert s3.names() == set()
    assert s3.multiparts() == []


@pytest.mark.parametrize(("status", "code"), [(507, "XMinioStorageFull"), (403, "QuotaExceeded"), (507, "Full")])
def test_a_bucket_that_is_full(s3: S3Store, source: Path, status: int, code: str) -> None:
    on(s3, "PutObject", refusal(status, code))
    with pytest.raises(StorageFull, match=code):
        s3.objects.put(source)


def test_a_server_in_trouble_is_asked_again(s3: S3Store, source: Path) -> None:
    answers = [refusal(503, "SlowDown"), refusal(500, "InternalError")]
    on(s3, "PutObject", lambda request: answers.pop()(request) if answers else None)
    assert s3.objects.has(s3.objects.put(source))
    answers[:] = [refusal(500, "InternalError")] * 9
    with pytest.raises(FarmUnavailable, match="failed: InternalError as planted"):
        s3.objects.check()
    assert len(answers) == 6


def test_a_bucket_that_is_not_there(moto: str, source: Path) -> None:
    objects = objects_at(f"s3://{KEY}:{SECRET}@{moto}/nowhere?secure=false")
    for call in calls_of(objects, source):
        with pytest.raises(FarmUnavailable, match="has no bucket 'nowhere'") as caught:
            call()
        assert not isinstance(caught.value, NotFound)
    objects.close()


def test_a_key_that_is_refused(moto: str, s3: S3Store, source: Path) -> None:
    httpx2.post(f"http://{moto}/moto-api/reset-auth", content="0")
    try:
        for call in calls_of(s3.objects, source):
            with pytest.raises(FarmUnavailable, match="refuses the key: ") as caught:
                call()
            assert "cret" not in str(caught.value)
    finally:
        httpx2.post(f"http://{moto}/moto-api/reset-auth", content="inf")


def test_a_link_gives_the_file_to_anybody_for_a_while(s3: S3Store, source: Path) -> None:
    digest = s3.objects.put(source)
    link = s3.objects.link(digest, name="Küche 1.png", media_type="image/png", lifetime_s=300.0)
    assert link is not None
    assert "X-Amz-Expires=300&" in link
    assert "cret" not in link
    got = httpx2.get(link)
    assert got.content == b"picture"
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["Content-Disposition"] == "inline; filename*=utf-8''K%C3%BCche%201.png"
    plain = s3.objects.link(digest, name="0001.png", media_type="image/png", lifetime_s=300.0)
    assert plain is not None
    assert httpx2.get(plain).headers["Content-Disposition"] == 'inline; filename="0001.png"'


@pytest.mark.parametrize(
    ("url", "host_and_path"),
    [
        ("s3://K:S@127.0.0.1:9000/scenes?secure=false", "http://127.0.0.1:9000/scenes"),
        ("s3://K:S@minio.lan:9000/scenes?style=virtual", "https://scenes.minio.lan:9000"),
        ("s3://K:S@s3.eu-central-1.amazonaws.com/scenes?region=eu-central-1", "https://scenes.s3.eu-central-1.amazona"),
        ("s3://K:S@oss-cn-hangzhou.aliyuncs.com/scenes", "https://scenes.oss-cn-hangzhou.aliyuncs.com"),
        ("s3://K:S@cos.ap-guangzhou.myqcloud.com/scenes-1250000000", "https://scenes-1250000000.cos.ap-guangzhou.my"),
    ],
)
@pytest.mark.parametrize("signature", ["v4", "v2"])
def test_the_bucket_is_in_the_path_or_in_the_host(url: str, host_and_path: str, signature: str) -> None:
    location = parse_storage_url(url)
    assert isinstance(location, S3Location)
    objects = S3Objects(replace(location, signature=signature))
    link = objects.link(MISSING, name="a.png", media_type="image/png", lifetime_s=60.0)
    assert link is not None
    assert link.startswith(host_and_path)
    assert f"/blobs/00/{MISSING}?" in link
    assert ("X-Amz-Algorithm=AWS4-HMAC-SHA256" in link) == (signature == "v4")
    objects.close()


def test_a_bucket_of_aws_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "K", "SECRET_ACCESS_KEY": "S", "DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("renderfarm.storage.s3_client._session", Session)
    objects = objects_at("s3://scenes/farm")
    link = objects.link(MISSING, name="a.png", media_type="image/png", lifetime_s=60.0)
    assert link is not None
    assert link.startswith(f"https://scenes.s3.eu-west-1.amazonaws.com/farm/blobs/00/{MISSING}?")
    objects.close()


# --- WebDAV --------------------------------------------------------------------------------------------------


def times(count: int, method: str, answer: HTTPStatus) -> Callable[[str, str], HTTPStatus | None]:
    left = iter(range(count))

    def fault(asked: str, path: str) -> HTTPStatus | None:
        return answer if asked == method and next(left, None) is not None else None

    return fault


@pytest.mark.parametrize("method", ["HEAD", "PUT", "MOVE", "MKCOL", "COPY", "GET", "PROPFIND", "DELETE"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_that_passes_is_not_noticed(
    server: DavServer, webdav: DiskStore, source: Path, method: str, when: str
) -> None:
    if method != "MKCOL":
        _come_and_go(webdav, source)  # from here on the folders are there, so that each request does what it should
    setattr(server, when, times(2, method, HTTPStatus.SERVICE_UNAVAILABLE))
    _come_and_go(webdav, source)


def _come_and_go(webdav: DiskStore, source: Path) -> None:
    digest = webdav.objects.put(source)
    webdav.objects.publish(digest, "task/0001.png")
    webdav.objects.fetch(digest, source.with_name("target"))
    assert [blob.digest for blob in webdav.objects.blobs()] == [digest]
    assert webdav.names() == {f"blobs/{digest[:2]}/{digest}", "outputs/task/0001.png"}
    webdav.objects.unpublish("task/0001.png")
    webdav.objects.remove(digest)
    assert webdav.names() == set()


@pytest.mark.parametrize(("method", "when"), [("PUT", "before"), ("PUT", "after"), ("MOVE", "before")])
def test_an_upload_that_fails_leaves_nothing(
    server: DavServer, webdav: DiskStore, source: Path, method: str, when: str
) -> None:
    setattr(server, when, times(99, method, HTTPStatus.INTERNAL_SERVER_ERROR))
    with pytest.raises(FarmUnavailable, match=f"answered 500 to {method}"):
        webdav.objects.put(source)
    assert webdav.names() == set()


def test_a_server_without_room(server: DavServer, webdav: DiskStore, source: Path) -> None:
    server.before = times(1, "PUT", HTTPStatus.INSUFFICIENT_STORAGE)
    with pytest.raises(StorageFull, match="is full"):
        webdav.objects.put(source)
    assert webdav.names() == set()


def test_a_server_that_cannot_copy(server: DavServer, webdav: DiskStore, source: Path) -> None:
    server.before = times(99, "COPY", HTTPStatus.METHOD_NOT_ALLOWED)
    digest = webdav.objects.put(source)
    webdav.objects.publish(digest, "task/0001.png")
    assert webdav.read("outputs/task/0001.png") == b"picture"
    webdav.write(f"blobs/{digest[:2]}/{digest}", b"damaged")
    with pytest.raises(FarmUnavailable, match="is damaged"):
        webdav.objects.publish(digest, "task/0002.png")
    assert webdav.names() == {f"blobs/{digest[:2]}/{digest}", "outputs/task/0001.png"}
    with pytest.raises(NotFound):
        webdav.objects.publish(MISSING, "task/0003.png")


def test_what_stays_behind_is_told(
    server: DavServer, webdav: DiskStore, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    webdav.objects.put(source)
    source.write_bytes(b"another")
    server.before = lambda method, path: {"MOVE": HTTPStatus.FORBIDDEN, "DELETE": HTTPStatus.FORBIDDEN}.get(method)
    with caplog.at_level(logging.WARNING), pytest.raises(FarmUnavailable, match="does not allow this user to MOVE"):
        webdav.objects.put(source)
    assert "stays in the object store" in caplog.text


def test_a_user_who_is_refused(server: DavServer, source: Path) -> None:
    objects, nobody = objects_at(f"http://farm:wrong@{server.address}/x"), objects_at(f"http://{server.address}/x")
    for call in (*calls_of(objects, source), nobody.check):
        with pytest.raises(FarmUnavailable, match="refuses the user or the password") as caught:
            call()
        assert "wrong" not in str(caught.value)
    objects.close()
    nobody.close()
    assert PASSWORD not in repr(parse_storage_url(server.url))


def test_a_server_that_speaks_something_else(server: DavServer, webdav: DiskStore, source: Path) -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "ha">]><multistatus xmlns="DAV:"><response>&b;</response></multistatus>'
    for body in (b"<html>", bomb):
        server.before = partial(lambda body, method, path: body if method == "PROPFIND" else None, body)
        with pytest.raises(FarmUnavailable, match="does not speak WebDAV"):
            list(webdav.objects.blobs())
    server.heal()
    digest = webdav.objects.put(source)
    server.before = lambda method, path: b"picture" if method == "GET" else None
    with webdav.objects.open(digest) as stream, pytest.raises(FarmUnavailable, match="no parts of files"):
        stream.read(1)


def test_a_file_that_changes_while_it_is_sent(server: DavServer, webdav: DiskStore, source: Path) -> None:
    def change(method: str, path: str) -> HTTPStatus | None:
        if method == "HEAD":
            source.write_bytes(b"changed")
        return None

    server.before = change
    with pytest.raises(FarmUnavailable, match="damaged"):
        webdav.objects.put(source)
    assert webdav.names() == set()
