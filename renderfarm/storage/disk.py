"""Files on this machine, on their way to a store and back: hashed, and whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from renderfarm.errors import FarmUnavailable, StorageFull

CHUNK_BYTES = 1 << 20


class HashedFile(io.FileIO):
    """A file for reading, as long as it was when it was hashed: a log may still grow meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.size_bytes = 0
        sha256 = hashlib.sha256()
        while chunk := super().read(CHUNK_BYTES):
            sha256.update(chunk)
            self.size_bytes += len(chunk)
        self.digest = sha256.hexdigest()
        self._sent_digest: str | None = None
        super().seek(0)

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.size_bytes - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left)) or b""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start; ``check_sent`` tells whether they were those that were hashed."""
        self.seek(0)
        self._sent_digest = None
        sha256 = hashlib.sha256()
        while chunk := self.read(CHUNK_BYTES):
            sha256.update(chunk)
            yield chunk
        self._sent_digest = sha256.hexdigest()

    def check_sent(self) -> None:
        """Raise FarmUnavailable unless the last ``chunks`` were taken to their end, and were those that were hashed."""
        if self._sent_digest != self.digest:
            raise _damaged(self.digest, self.size_bytes)


def checked(chunks: Iterable[bytes], digest: str) -> Iterator[bytes]:
    """Yield the chunks. Raises FarmUnavailable in the end if they have another digest."""
    sha256, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size_bytes += len(chunk)
        yield chunk
    if sha256.hexdigest() != digest:
        raise _damaged(digest, size_bytes)


def check_damage(path: Path, digest: str) -> None:
    """Raise FarmUnavailable if the file has another digest."""
    with HashedFile(path) as file:
        if file.digest != digest:
            raise _damaged(digest, file.size_bytes)


def _damaged(digest: str, size_bytes: int) -> FarmUnavailable:
    return FarmUnavailable(f"object {digest} is damaged: its {size_bytes} bytes have another digest")


def file_chunks(reader: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file."""
    return iter(lambda: reader.read(CHUNK_BYTES), b"")


def write_whole(chunks: Iterable[bytes], target: Path) -> None:
    """Write chunks to ``target``, which appears once all are there. Raises StorageFull, FarmUnavailable."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target.parent) as (partial, writer):
            for chunk in chunks:
                writer.write(chunk)
            writer.flush()
            partial.replace(target)


@contextmanager
def new_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file that is removed again unless it was moved away."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".partial-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            yield partial, writer
    finally:
        partial.unlink(missing_ok=True)


def check_room(folder: Path, name: str, size_bytes: int, reserve_bytes: int) -> None:
    """Raise StorageFull if a file would leave less than ``reserve_bytes`` on the disk of a folder."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes - size_bytes < reserve_bytes:
        raise StorageFull(
            f"no room left on the disk for {name}: {free_bytes >> 20} MiB are free, "
            f"of which {reserve_bytes >> 20} MiB are kept for the farm's own records"
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what this machine's file system says about ``path`` into errors of the farm."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no room left on the disk for {path.name}") from error
        raise FarmUnavailable(f"the object store failed on {path.name}: {error.strerror or error}") from error
