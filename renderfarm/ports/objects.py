"""The object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A blob as it lies in the store."""

    digest: str
    size_bytes: int
    stored_at: float
    """When it was last put, in seconds since the epoch by the store's clock."""


class Objects(Protocol):
    """Immutable blobs by the SHA-256 of their bytes, and published files by name.

    Every method raises FarmUnavailable while the store does not answer.
    """

    def put(self, source: Path, *, spare: bool = False) -> str:
        """Store a file's bytes, once however often they come; return their digest.

        Bytes that were there already count as put anew (``StoredBlob.stored_at``), so that no sweep takes them
        before whoever put them has written their digest down.

        Args:
            spare: nobody will write to the file any more, so a store on the same disk may keep it as it is instead of
                writing its bytes once more. It may be removed afterwards as any other.

        Raises:
            StorageFull: there is no room; nothing is left behind.
        """

    def has(self, digest: str) -> bool: ...
    def open(self, digest: str) -> BinaryIO:
        """Open for reading; the stream can seek. Raises NotFound."""

    def fetch(self, digest: str, target: Path) -> None:
        """Write a blob to ``target``, which appears only when it is whole. Raises NotFound, StorageFull."""

    def publish(self, digest: str, name: str) -> None:
        """Let the blob appear as a whole under ``name`` (folders with ``/``), replacing what stood there."""

    def unpublish(self, name: str) -> None:
        """Remove the name if it is there; the blob stays."""

    def blobs(self) -> Iterator[StoredBlob]:
        """Yield every blob in the store."""

    def remove(self, digest: str) -> None:
        """Remove a blob if it is there."""

    def link(self, digest: str, *, name: str, media_type: str, lifetime_s: float) -> str | None:
        """Return a URL by which anybody may read the blob for a while, as a file ``name``; None: there is none."""

    def check(self) -> None:
        """Raise FarmUnavailable unless the store answers and may be written to."""

    def close(self) -> None: ...
