"""The object store in a folder: ``blobs/ab/abcdef…`` by digest, and published files under ``outputs/``."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from renderfarm.errors import NotFound
from renderfarm.ports import StoredBlob
from renderfarm.storage.disk import HashedFile, check_room, checked, disk_errors, file_chunks, new_file, write_whole

_READ_ONLY = 0o444


class FolderObjects:
    """Implements ``ports.Objects``. Everything appears by a name, its only one or one more: whole, or not at all."""

    def __init__(self, root: Path, reserve_bytes: int = 0) -> None:
        """Open or make the store; it leaves ``reserve_bytes`` of every disk that it writes to."""
        self._reserve_bytes = reserve_bytes
        self._blobs = root / "blobs"
        self._published = root / "outputs"
        self._partial = root / "partial"
        for folder in (self._blobs, self._published, self._partial):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, source: Path, *, spare: bool = False) -> str:
        with disk_errors(source):
            return (self._adopt(source) if spare else None) or self._copy(source)

    def _adopt(self, source: Path) -> str | None:
        """Keep a file itself, by a second name; None where that cannot be: its disk is another, or knows no such."""
        if source.is_symlink() or source.stat().st_dev != self._blobs.stat().st_dev:
            return None
        check_room(self._blobs, source.name, 0, self._reserve_bytes)
        with HashedFile(source) as file:
            blob = self._blob(file.digest)
            if not _refresh(blob):
                _make_lasting(file)
                blob.parent.mkdir(exist_ok=True)
                try:
                    os.link(source, blob)
                except FileExistsError:  # another one, at the same time
                    return file.digest
                except OSError:  # too many names, or none but the first
                    return None
                _refresh(blob)  # it was written some time ago
                _sync_folder(blob.parent)
            return file.digest

    def _copy(self, source: Path) -> str:
        with source.open("rb") as reader, new_file(self._partial) as (partial, writer):
            check_room(self._partial, source.name, source.stat().st_size, self._reserve_bytes)
            digest = _copy_hashed(reader, writer)
            blob = self._blob(digest)
            if not _refresh(blob):
                blob.parent.mkdir(exist_ok=True)
                partial.replace(blob)
                _sync_folder(blob.parent)
        return digest

    def has(self, digest: str) -> bool:
        with disk_errors(self._blob(digest)):
            return self._blob(digest).exists()

    def open(self, digest: str) -> BinaryIO:
        with disk_errors(self._blob(digest)):
            try:
                return self._blob(digest).open("rb")
            except FileNotFoundError as error:
                raise NotFound(f"no object {digest}") from error

    def fetch(self, digest: str, target: Path) -> None:
        with self.open(digest) as reader, disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            check_room(target.parent, target.name, os.fstat(reader.fileno()).st_size, self._reserve_bytes)
            write_whole(checked(file_chunks(reader), digest), target)

    def publish(self, digest: str, name: str) -> None:
        target = self._published / name
        blob = self._blob(digest)
        if not blob.exists():
            raise NotFound(f"no object {digest}")
        partial = self._partial / f".partial-{uuid4().hex}"
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                try:
                    os.link(blob, partial)
                except OSError:  # a file system without hard links, or a blob with too many
                    shutil.copyfile(blob, partial)
                partial.replace(target)
            finally:
                # Renaming one hard link of a file onto another of the same file does nothing.
                partial.unlink(missing_ok=True)

    def unpublish(self, name: str) -> None:
        target = self._published / name
        with disk_errors(target):
            target.unlink(missing_ok=True)

    def blobs(self) -> Iterator[StoredBlob]:
        with disk_errors(self._blobs):
            for folder in self._blobs.iterdir():
                for blob in folder.iterdir():
                    try:
                        found = blob.stat()
                    except FileNotFoundError:  # removed since it was listed
                        continue
                    yield StoredBlob(digest=blob.name, size_bytes=found.st_size, stored_at=found.st_mtime)

    def remove(self, digest: str) -> None:
        blob = self._blob(digest)
        with disk_errors(blob):
            blob.unlink(missing_ok=True)

    def link(self, digest: str, *, name: str, media_type: str, lifetime_s: float) -> str | None:
        return None

    def check(self) -> None:
        with disk_errors(self._partial), new_file(self._partial):
            pass

    def close(self) -> None: ...

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest[:2] / digest


def _refresh(blob: Path) -> bool:
    """Let a blob count as put just now; tell whether it is there."""
    try:
        os.utime(blob)
    except FileNotFoundError:
        return False
    return True


def _copy_hashed(reader: BinaryIO, writer: BinaryIO) -> str:
    sha256 = hashlib.sha256()
    for chunk in file_chunks(reader):
        sha256.update(chunk)
        writer.write(chunk)
    writer.flush()
    _make_lasting(writer)
    return sha256.hexdigest()


def _make_lasting(file: BinaryIO | HashedFile) -> None:
    os.fchmod(file.fileno(), _READ_ONLY)
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure: the entry is the folder's data, not the file's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
