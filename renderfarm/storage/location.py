"""Where the object store is: the storage URL, taken apart.

``s3://KEY:SECRET@HOST:PORT/BUCKET/PREFIX?OPTIONS``
    A server that speaks S3. What follows the slashes is a server if it has a key before it, a port behind it or a dot
    in it; without a key, boto3 looks for one as it always does (environment, ``~/.aws``, the machine's role).
``s3://BUCKET/PREFIX?OPTIONS``
    A bucket of AWS, with the key that boto3 finds. A bucket with a dot in its name needs the form above.
``http://USER:PASSWORD@HOST:PORT/FOLDER``, ``https://…``
    Dufs, or another WebDAV server. The user may be left out.

Keys, secrets, users and passwords are percent-encoded: a ``/`` in a secret is ``%2F``. Options of S3:

========= ============================== =======================================================================
region    default: boto3's, for AWS;     the region that requests are signed for
          else ``us-east-1``
secure    ``true`` or ``false``          https or http; default https
style     ``path`` or ``virtual``        the bucket in the path or in the host name; default ``virtual`` for AWS,
                                         Alibaba (aliyuncs.com) and Tencent (myqcloud.com), else ``path``
signature ``v4`` or ``v2``               default v4; v2 for servers that refuse boto3's v4
checksum  ``none`` or ``sha256``         default none: v4 signs each part's SHA-256, and the server checks that;
                                         ``sha256`` makes AWS and MinIO also keep it with the file
========= ============================== =======================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from renderfarm.errors import InvalidInput

_CHOICES = {
    "secure": ("true", "false"),
    "style": ("path", "virtual"),
    "signature": ("v4", "v2"),
    "checksum": ("none", "sha256"),
}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", re.ASCII)
_REGION = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
_VIRTUAL_ONLY = ("amazonaws.com", "amazonaws.com.cn", "aliyuncs.com", "myqcloud.com")


@dataclass(frozen=True, kw_only=True)
class S3Location:
    """A bucket, or a part of it."""

    bucket: str
    prefix: str
    """Before every key; empty, or with a slash at its end."""
    endpoint: str | None
    """``https://HOST:PORT``; None: AWS."""
    key: str | None = field(repr=False)
    """None: boto3 looks for key and secret."""
    secret: str | None = field(repr=False)
    region: str | None
    """None: boto3's own."""
    virtual: bool
    """The bucket is a part of the host name."""
    signature: str
    """``v4`` or ``v2``."""
    keeps_sha256: bool
    """The server is told each file's SHA-256 to keep."""

    def __str__(self) -> str:
        return f"{self.endpoint or 's3:/'}/{self.bucket}/{self.prefix}"


@dataclass(frozen=True, kw_only=True)
class WebDavLocation:
    """A folder of a WebDAV server."""

    url: str
    """Without user, password and final slash."""
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    def __str__(self) -> str:
        return self.url


def parse_storage_url(url: str) -> S3Location | WebDavLocation:
    """Take a storage URL apart.

    Raises:
        InvalidInput: it is none; the message does not repeat it, for its secrets.
    """
    try:
        parts = urlsplit(url.strip())
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError as error:
        raise _bad("its host or port is malformed") from error
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    if not host:
        raise _bad("it names no host")
    if parts.fragment:
        raise _bad("it has a '#'; within a password that is %23")
    if parts.scheme == "s3":
        return _s3(parts, host + port)
    if parts.scheme in ("http", "https"):
        return _webdav(parts, host + port)
    raise _bad("it must begin with s3://, http:// or https://")


def _s3(parts: SplitResult, host: str) -> S3Location:
    options = _options(parts.query)
    path = [unquote(part) for part in parts.path.split("/") if part]
    is_server = parts.username is not None or ":" in host or "." in host
    bucket, *prefix = (path or [""]) if is_server else [parts.netloc, *path]  # netloc keeps capital letters
    if (parts.username is None) != (parts.password is None):
        raise _bad("it has a key without its secret")
    if not _BUCKET.fullmatch(bucket):
        raise _bad("its bucket has a name that no bucket has")
    scheme = "http" if options.get("secure") == "false" else "https"
    clouds = not is_server or host.partition(":")[0].endswith(_VIRTUAL_ONLY)
    own_region = None if not is_server or host.endswith(_VIRTUAL_ONLY[:2]) else "us-east-1"
    return S3Location(
        bucket=bucket,
        prefix="".join(f"{part}/" for part in prefix),
        endpoint=f"{scheme}://{host}" if is_server else None,
        key=_decoded(parts.username),
        secret=_decoded(parts.password),
        region=options.get("region", own_region),
        virtual=clouds if "style" not in options else options["style"] == "virtual",
        signature=options.get("signature", "v4"),
        keeps_sha256=options.get("checksum") == "sha256",
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name == "region" and _REGION.fullmatch(value):
            continue
        if name not in _CHOICES:
            raise _bad("its options are region, secure, style, signature and checksum")
        if value not in _CHOICES[name]:
            raise _bad(f"its option {name} is one of {', '.join(_CHOICES[name])}")
    return options


def _webdav(parts: SplitResult, host: str) -> WebDavLocation:
    if parts.query:
        raise _bad("it has a '?'; within a password that is %3F")
    folder = "/".join(quote(unquote(part)) for part in parts.path.split("/") if part)
    return WebDavLocation(
        url=f"{parts.scheme}://{host}/{folder}".rstrip("/"),
        user=_decoded(parts.username),
        password=_decoded(parts.password) or "",
    )


def _decoded(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _bad(reason: str) -> InvalidInput:
    return InvalidInput(f"the storage URL cannot be right: {reason}")
