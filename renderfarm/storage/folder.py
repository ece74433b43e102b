"""The object store in a folder: ``blobs/ab/abcdef…`` by digest, and published files under ``outputs/``."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from renderfarm.errors import FarmUnavailable, NotFound, StorageFull

_CHUNK_BYTES = 1 << 20
_READ_ONLY = 0o444


class FolderObjects:
    """Implements ``ports.Objects``. Everything appears by a rename within one file system: whole, or not at all."""

    def __init__(self, root: Path, reserve_bytes: int = 0) -> None:
        """Open or make the store; it leaves ``reserve_bytes`` of every disk that it writes to."""
        self._reserve_bytes = reserve_bytes
        self._blobs = root / "blobs"
        self._published = root / "outputs"
        self._partial = root / "partial"
        for folder in (self._blobs, self._published, self._partial):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, source: Path) -> str:
        with _disk_errors(source), source.open("rb") as reader, _new_file(self._partial) as (partial, writer):
            self._check_room(self._partial, source)
            digest = _copy_hashed(reader, writer)
            blob = self._blob(digest)
            if not blob.exists():
                blob.parent.mkdir(exist_ok=True)
                partial.replace(blob)
                _sync_folder(blob.parent)
        return digest

    def has(self, digest: str) -> bool:
        return self._blob(digest).exists()

    def open(self, digest: str) -> BinaryIO:
        try:
            return self._blob(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"no object {digest}") from error

    def fetch(self, digest: str, target: Path) -> None:
        with _disk_errors(target), self.open(digest) as reader:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._check_room(target.parent, self._blob(digest))
            with _new_file(target.parent) as (partial, writer):
                shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
                writer.flush()
                partial.replace(target)

    def publish(self, digest: str, name: str) -> None:
        target = self._published / name
        blob = self._blob(digest)
        if not blob.exists():
            raise NotFound(f"no object {digest}")
        with _disk_errors(target), tempfile.TemporaryDirectory(dir=self._partial) as folder:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(folder) / "file"
            try:
                os.link(blob, partial)
            except OSError:  # a file system without hard links, or a blob with too many
                shutil.copyfile(blob, partial)
            partial.replace(target)
            # Renaming one hard link of a file onto another of the same file does nothing; the folder goes anyway.

    def unpublish(self, name: str) -> None:
        (self._published / name).unlink(missing_ok=True)

    def _check_room(self, folder: Path, source: Path) -> None:
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes - source.stat().st_size < self._reserve_bytes:
            raise StorageFull(
                f"no room left on the disk for {source.name}: {free_bytes >> 20} MiB are free, "
                f"of which {self._reserve_bytes >> 20} MiB are kept for the farm's own records"
            )

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest[:2] / digest


@contextmanager
def _new_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file that is removed again unless it was moved away."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".partial-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            yield partial, writer
    finally:
        partial.unlink(missing_ok=True)


def _copy_hashed(reader: BinaryIO, writer: BinaryIO) -> str:
    sha256 = hashlib.sha256()
    while chunk := reader.read(_CHUNK_BYTES):
        sha256.update(chunk)
        writer.write(chunk)
    writer.flush()
    os.fchmod(writer.fileno(), _READ_ONLY)
    os.fsync(writer.fileno())
    return sha256.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure: the entry is the folder's data, not the file's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no room left on the disk for {path.name}") from error
        raise FarmUnavailable(f"the object store failed on {path.name}: {error.strerror or error}") from error
