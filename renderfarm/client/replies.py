"""What the client gives back where a plain JSON object would not do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: A wire object as the OpenAPI page describes it.
JSON = dict[str, Any]
#: Called with the bytes done and the bytes in all.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A hint that something has changed; fetch it to know what."""

    id: int
    event: str
    """For example ``task.state``, ``unit.state``, ``frame.committed``."""
    task_id: str | None
    unit_id: str | None
    revision: int | None
    """The task's revision after the change."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A small picture."""

    data: bytes
    media_type: str
    etag: str
    """Changes with the picture."""


@dataclass(frozen=True, kw_only=True)
class LogSlice:
    """A piece of Blender's output."""

    data: bytes
    attempt: int
    offset: int
    """Where ``data`` starts, in bytes."""
    next_offset: int
    complete: bool
    """The attempt has ended and ``data`` reaches its last byte."""
