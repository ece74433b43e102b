"""The object store in a bucket of anything that speaks S3: ``blobs/ab/abcdef…`` by digest, ``outputs/`` by name."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import stamina
from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError
from s3transfer.manager import TransferManager
from urllib3.exceptions import HTTPError

from renderfarm.errors import FarmUnavailable, NotFound, RenderfarmError, StorageFull
from renderfarm.ports import StoredBlob
from renderfarm.storage.disk import HashedFile, check_damage, check_room, disk_errors, new_file
from renderfarm.storage.location import S3Location
from renderfarm.storage.ranges import open_ranges
from renderfarm.storage.s3_client import COPIES, TRANSFERS, KnownSize, new_client

#: Bytes that are put again count as new from here on; they need not be marked so at every put.
REFRESH_AFTER_S = 300.0
_TRIES = 3
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
#: What the network may do to an answer on its way, after boto3's own retries of the request.
_BROKEN = (
    HTTPError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    RetriesExceededError,
    S3DownloadFailedError,
)


class S3Objects:
    """Implements ``ports.Objects``. An object of S3 appears when it is whole; many threads may use one of these."""

    def __init__(self, location: S3Location, reserve_bytes: int = 0) -> None:
        """Connect when first needed; ``fetch`` leaves ``reserve_bytes`` of every disk that it writes to."""
        self._location = location
        self._reserve_bytes = reserve_bytes
        self._lock = Lock()
        self._opened: tuple[Any, TransferManager] | None = None

    def put(self, source: Path, *, spare: bool = False) -> str:
        with disk_errors(source), HashedFile(source) as file, self._errors():
            key = self._blob_key(file.digest)
            known = self._head(key)
            if known is None or known["ContentLength"] != file.size_bytes:
                self._upload(source, file.size_bytes, key)
            elif _age_s(known) > REFRESH_AFTER_S:
                self._copy(key, key, "application/octet-stream")
            return file.digest

    def has(self, digest: str) -> bool:
        with self._errors():
            found = self._head(self._blob_key(digest)) is not None
            if not found:
                self._check_bucket()
            return found

    def open(self, digest: str) -> BinaryIO:
        with self._errors():
            size_bytes = self._known(digest)["ContentLength"]
        return open_ranges(size_bytes, lambda start, end: self._read(digest, start, end))

    def fetch(self, digest: str, target: Path) -> None:
        with disk_errors(target), self._errors():
            known = self._known(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            check_room(target.parent, target.name, known["ContentLength"], self._reserve_bytes)
            for attempt in _retries():
                with attempt, new_file(target.parent) as (partial, writer):
                    if known["ContentLength"]:  # a range of nothing is an error to some servers
                        self._transfers.download(self._location.bucket, self._blob_key(digest), writer).result()
                    writer.flush()
                    check_damage(partial, digest)
                    partial.replace(target)

    def publish(self, digest: str, name: str) -> None:
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with self._errors():
            try:
                self._copy(self._blob_key(digest), self._key(f"outputs/{name}"), media_type)
            except ClientError as error:
                if _status(error) != 404:
                    raise
                self._check_bucket()
                raise NotFound(f"no object {digest}") from error

    def unpublish(self, name: str) -> None:
        with self._errors():
            self.client.delete_object(Bucket=self._location.bucket, Key=self._key(f"outputs/{name}"))

    def blobs(self) -> Iterator[StoredBlob]:
        with self._errors():
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._location.bucket, Prefix=self._key("blobs/")):
                for item in page.get("Contents", ()):
                    yield StoredBlob(
                        digest=item["Key"].rpartition("/")[2],
                        size_bytes=item["Size"],
                        stored_at=item["LastModified"].timestamp(),
                    )

    def remove(self, digest: str) -> None:
        with self._errors():
            self.client.delete_object(Bucket=self._location.bucket, Key=self._blob_key(digest))

    def link(self, digest: str, *, name: str, media_type: str, lifetime_s: float) -> str | None:
        wanted = {
            "Bucket": self._location.bucket,
            "Key": self._blob_key(digest),
            "ResponseContentType": media_type,
            "ResponseContentDisposition": _disposition(name),
        }
        with self._errors():
            url: str = self.client.generate_presigned_url("get_object", wanted, ExpiresIn=max(1, round(lifetime_s)))
            return url

    def check(self) -> None:
        with self._errors():
            self.client.put_object(Bucket=self._location.bucket, Key=self._key("check"), Body=b"")

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            client, transfers = opened
            transfers.shutdown()
            client.close()

    @property
    def client(self) -> Any:
        """boto3's own client, made when it is first needed."""
        return self._open()[0]

    @property
    def _transfers(self) -> TransferManager:
        return self._open()[1]

    def _open(self) -> tuple[Any, TransferManager]:
        with self._lock:
            if self._opened is None:
                client = new_client(self._location)
                self._opened = client, TransferManager(client, TRANSFERS)
            return self._opened

    def _upload(self, source: Path, size_bytes: int, key: str) -> None:
        sha256 = {"ChecksumAlgorithm": "SHA256"} if self._location.keeps_sha256 else {}
        subscribers = [KnownSize(size_bytes)]
        # By its name, not as a stream: the parts are then read from the disk while they are sent.
        self._transfers.upload(str(source), self._location.bucket, key, sha256, subscribers).result()

    def _read(self, digest: str, start: int, end: int) -> bytes:
        with self._errors():
            for attempt in _retries():
                with attempt:
                    answer = self.client.get_object(
                        Bucket=self._location.bucket, Key=self._blob_key(digest), Range=f"bytes={start}-{end - 1}"
                    )
                    with answer["Body"] as body:
                        data: bytes = body.read()
                        return data
        raise AssertionError("stamina gives up by raising")

    def _copy(self, source: str, target: str, media_type: str) -> None:
        bucket = self._location.bucket
        # Without new metadata S3 refuses to copy an object onto itself.
        replaced = {"MetadataDirective": "REPLACE", "ContentType": media_type}
        self.client.copy({"Bucket": bucket, "Key": source}, bucket, target, ExtraArgs=replaced, Config=COPIES)

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self.client.head_object(Bucket=self._location.bucket, Key=key)
        except ClientError as error:
            if _status(error) != 404:
                raise
            return None
        return answer

    def _known(self, digest: str) -> dict[str, Any]:
        known = self._head(self._blob_key(digest))
        if known is None:
            self._check_bucket()
            raise NotFound(f"no object {digest}")
        return known

    def _check_bucket(self) -> None:
        """Raise FarmUnavailable without a bucket: a missing object looks the same, and may lead to other steps."""
        try:
            self.client.head_bucket(Bucket=self._location.bucket)
        except ClientError as error:
            if _status(error) == 404:
                raise self._no_bucket() from error
            if _status(error) != 403:  # its keys may be for objects only
                raise

    def _no_bucket(self) -> FarmUnavailable:
        return FarmUnavailable(f"the object store {self._location} has no bucket {self._location.bucket!r}")

    def _blob_key(self, digest: str) -> str:
        return self._key(f"blobs/{digest[:2]}/{digest}")

    def _key(self, name: str) -> str:
        return self._location.prefix + name

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._of_answer(error) from error
        except (BotoCoreError, Boto3Error, *_BROKEN) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FarmUnavailable(f"the object store {self._location} does not answer: {reason}") from error

    def _of_answer(self, error: ClientError) -> RenderfarmError:
        status, told = _status(error), error.response["Error"]
        code = told.get("Code") or str(status)
        reason = " ".join(f"{code} {told.get('Message', '')}".split())
        if code in _FULL or status == 507:
            return StorageFull(f"the object store {self._location} is full: {reason}")
        if code == "NoSuchBucket":
            return self._no_bucket()
        if status == 404:
            return NotFound(f"the object store {self._location} has it no more: {reason}")
        if status in (401, 403):
            return FarmUnavailable(f"the object store {self._location} refuses the key: {reason}")
        return FarmUnavailable(f"the object store {self._location} failed: {reason}")


def _retries() -> Iterable[stamina.Attempt]:
    return stamina.retry_context(on=_BROKEN, attempts=_TRIES, timeout=None, wait_initial=0.1, wait_jitter=0.2)


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"].get("HTTPStatusCode", 0)


def _age_s(known: dict[str, Any]) -> float:
    """Return how long ago an object was stored, by the store's clock."""
    now = known["ResponseMetadata"]["HTTPHeaders"].get("date", formatdate(usegmt=True))
    age_s: float = (parsedate_to_datetime(now) - known["LastModified"]).total_seconds()
    return age_s


def _disposition(name: str) -> str:
    header = Message()
    header.add_header("Content-Disposition", "inline", filename=name if name.isascii() else ("utf-8", "", name))
    return header["Content-Disposition"]
