"""What a storage URL may be, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from renderfarm.errors import InvalidInput
from renderfarm.settings import Settings
from renderfarm.storage import S3Location, WebDavLocation, parse_storage_url

S3: dict[str, Any] = {
    "bucket": "scenes",
    "prefix": "",
    "endpoint": None,
    "key": None,
    "secret": None,
    "region": None,
    "virtual": False,
    "signature": "v4",
    "keeps_sha256": False,
}
KEYS = {"key": "KEY", "secret": "SECRET"}
MINIO = {"endpoint": "http://127.0.0.1:9000", "region": "us-east-1", **KEYS}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://scenes", {"virtual": True}),
        ("s3://Scenes_1/farm/a?region=eu-west-1", {
            "bucket": "Scenes_1", "prefix": "farm/a/", "virtual": True, "region": "eu-west-1",
        }),
        ("s3://KEY:SECRET@127.0.0.1:9000/scenes?secure=false", MINIO),
        ("s3://minio:9000/scenes", {"endpoint": "https://minio:9000", "region": "us-east-1"}),
        ("s3://KEY:SECRET@minio/scenes", {"endpoint": "https://minio", "region": "us-east-1", **KEYS}),
        ("s3://[::1]:9000/scenes", {"endpoint": "https://[::1]:9000", "region": "us-east-1"}),
        ("s3://KEY:SEC%2FRET@minio.lan/scenes/a%20b?style=virtual", {
            "endpoint": "https://minio.lan", "region": "us-east-1", "virtual": True, "prefix": "a b/",
            "key": "KEY", "secret": "SEC/RET",
        }),
        ("s3://KEY:SECRET@s3.eu-central-1.amazonaws.com/my.scenes?region=eu-central-1&style=path", {
            "bucket": "my.scenes", "endpoint": "https://s3.eu-central-1.amazonaws.com", "region": "eu-central-1",
            **KEYS,
        }),
        ("s3://KEY:SECRET@s3.oss-cn-hangzhou.aliyuncs.com/scenes?region=cn-hangzhou&signature=v2", {
            "endpoint": "https://s3.oss-cn-hangzhou.aliyuncs.com", "region": "cn-hangzhou", "virtual": True,
            "signature": "v2", **KEYS,
        }),
        ("s3://KEY:SECRET@cos.ap-guangzhou.myqcloud.com/scenes-125?region=ap-guangzhou&checksum=sha256", {
            "bucket": "scenes-125", "endpoint": "https://cos.ap-guangzhou.myqcloud.com", "region": "ap-guangzhou",
            "virtual": True, "keeps_sha256": True, **KEYS,
        }),
    ],
)  # fmt: skip
def test_s3(url: str, expected: dict[str, Any]) -> None:
    assert parse_storage_url(url) == S3Location(**{**S3, **expected})
    Settings(storage_url=url)


@pytest.mark.parametrize(
    ("url", "place", "user", "password"),
    [
        ("http://dufs:5000", "http://dufs:5000", None, ""),
        ("http://farm:p%40ss@127.0.0.1:5000/render/farm/", "http://127.0.0.1:5000/render/farm", "farm", "p@ss"),
        ("https://farm@files.lan/Größe%201", "https://files.lan/Gr%C3%B6%C3%9Fe%201", "farm", ""),
    ],
)
def test_webdav(url: str, place: str, user: str | None, password: str) -> None:
    assert parse_storage_url(url) == WebDavLocation(url=place, user=user, password=password)
    Settings(storage_url=url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://KEY:S3CRET@host/scenes", "must begin with s3://"),
        ("/srv/S3CRET", "names no host"),
        ("s3://KEY:S3CRET@host:port/scenes", "host or port"),
        ("s3://KEY:S3CRET@host", "its bucket"),
        ("s3://KEY:S3CRET@host/a", "its bucket"),
        ("s3://S3CRET@host/scenes", "a key without its secret"),
        ("s3://KEY:S3CRET@host/scenes?acl=public", "its options are"),
        ("s3://KEY:S3CRET@host/scenes?secure=no", "its option secure is one of true, false"),
        ("s3://KEY:S3CRET@host/scenes?region=", "its option"),
        ("s3://KEY:S3CRET@host/scenes#x", "has a '#'"),
        ("http://farm:S3CRET@host/folder?x", "has a '?'"),
    ],
)
def test_no_storage_url(url: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        parse_storage_url(url)
    assert "S3CRET" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    for url in ("s3://KEY:S3CRET@host/scenes", "http://farm:S3CRET@host/folder"):
        location = parse_storage_url(url)
        assert "S3CRET" not in repr(location)
        assert "S3CRET" not in str(location)
