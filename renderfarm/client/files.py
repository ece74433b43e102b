"""Files on their way to the farm and back: streamed, with progress, and whole or not there at all."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from renderfarm.client.replies import OnProgress
from renderfarm.errors import FarmUnavailable


class ReportingFile(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, on_progress: OnProgress | None) -> None:
        super().__init__(path, "rb")
        self._on_progress = on_progress
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        if self._on_progress is not None and data:
            self._on_progress(self.tell(), self._size)
        return data


def write_whole(
    chunks: Iterable[bytes], target: Path, *, sha256: str, size_bytes: int, on_progress: OnProgress | None
) -> None:
    """Write chunks to ``target``, which appears (or changes) only once all bytes are there and are the right ones.

    Raises:
        FarmUnavailable: the bytes are not those that the farm announced.
        OSError: the disk does not take them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid4().hex}.part")
    digest, done = hashlib.sha256(), 0
    try:
        with part.open("xb") as stream:
            for chunk in chunks:
                stream.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, size_bytes)
            stream.flush()
            os.fsync(stream.fileno())
        if digest.hexdigest() != sha256:
            raise FarmUnavailable(f"{target.name} arrived damaged: {done} of {size_bytes} bytes, or other ones")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
