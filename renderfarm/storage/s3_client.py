"""How boto3 is set up: time-outs, retries, checksums, parts of big files, and the bucket's place in the URL."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from s3transfer.futures import TransferFuture
from s3transfer.manager import TransferConfig as ManagerConfig
from s3transfer.subscribers import BaseSubscriber

from renderfarm.storage.location import S3Location

_PART_BYTES = 8 << 20
_COPY_MAX_BYTES = 5 << 30
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _TRIES = 5, 60, 3
_THREADS = 4
TRANSFERS = ManagerConfig(
    multipart_threshold=_PART_BYTES,
    multipart_chunksize=_PART_BYTES,
    max_request_concurrency=_THREADS,
    max_io_queue_size=16,
)
#: One request copies up to 5 GiB; what is larger is copied in parts.
COPIES = TransferConfig(multipart_threshold=_COPY_MAX_BYTES, multipart_chunksize=512 << 20, max_concurrency=_THREADS)
#: Clients are for many threads, the session that makes them is not.
_making = Lock()


class KnownSize(BaseSubscriber):
    """Says how much of a file to upload: a log may have grown since it was hashed."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._size_bytes = size_bytes

    def on_queued(self, future: TransferFuture, **_: Any) -> None:
        future.meta.provide_transfer_size(self._size_bytes)


@cache
def _session() -> Session:
    return Session()


def new_client(location: S3Location) -> Any:
    """Return boto3's client for a location; it connects when it is first used."""
    with _making:
        return _session().client(
            "s3",
            endpoint_url=location.endpoint,
            aws_access_key_id=location.key,
            aws_secret_access_key=location.secret,
            region_name=location.region,
            config=_config(location),
        )


def _config(location: S3Location) -> Config:
    return Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        max_pool_connections=4 * _THREADS,
        tcp_keepalive=True,
        signature_version="s3v4" if location.signature == "v4" else "s3",
        # boto3's own checksums travel behind the body, which Alibaba, Tencent and older MinIO refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "virtual" if location.virtual else "path",
            # Over https, too: the server refuses a body that has not the SHA-256 which was signed.
            "payload_signing_enabled": True,
        },
    )
