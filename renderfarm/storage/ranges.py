"""Reading a file far away as if it were here: by ranges, with read-ahead, never the whole of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AHEAD_BYTES = 1 << 20


def open_ranges(size_bytes: int, read_range: Callable[[int, int], bytes]) -> BinaryIO:
    """Open a file of ``size_bytes``; ``read_range`` returns its bytes from a start to an end (exclusive)."""
    return io.BufferedReader(_Ranges(size_bytes, read_range), _READ_AHEAD_BYTES)


class _Ranges(io.RawIOBase):
    def __init__(self, size_bytes: int, read_range: Callable[[int, int], bytes]) -> None:
        self._size_bytes = size_bytes
        self._read_range = read_range
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        if start + offset < 0:
            raise ValueError("cannot seek before the start of a file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size_bytes)

    def _read(self, most_bytes: int) -> bytes:
        end = min(self._position + most_bytes, self._size_bytes)
        if end <= self._position:
            return b""
        data = self._read_range(self._position, end)
        self._position += len(data)
        return data
