"""What the farm and a Blender session say to each other: one JSON object a line, the same code on both sides.

The farm sends requests, and may send the next one while the session is at work; they are done in their order. The
session answers each with any number of ``Opened``, ``Progress`` and ``FrameDone`` and at last one ``Result`` or
``Error``, all carrying the request's id. ``Ready`` comes once, with id 0.
"""

from __future__ import annotations

import json
import re
import typing
from dataclasses import asdict, dataclass
from typing import Any


class ProtocolError(Exception):
    """A line that is not a message."""


# --- requests ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ping:
    """Answered at once by a session that is idle."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Open a file and tell its facts; the result's value has the fields of ``renderfarm.domain.facts.SceneFacts``."""

    scene_path: str
    log_path: str
    """File to which Blender's output goes from this request on."""


@dataclass(frozen=True, kw_only=True)
class Render:
    """Render frames by a unit's script; each ends with a ``FrameDone``."""

    script: str
    """The script's source, as ``renderfarm.services.unit_script`` writes it."""
    scene_path: str
    output_dir: str
    frames: tuple[int, ...]
    log_path: str
    """File to which Blender's output goes from this request on."""
    saving_min: float
    """Share of a frame, 0 to 1, that keeping render data must save where the unit leaves it to the session."""
    fresh: bool = False
    """Open the file anew, so that nothing is left of what was rendered before."""
    memory_max_bytes: int = 0
    """Resident memory above which the session gives up what it keeps, and at last wants to be ended; 0: no limit."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Write a frame's files from the merged passes of its parts; ends with a ``FrameDone``."""

    script: str
    """The source of the script of the whole frame."""
    scene_path: str
    merged_path: str
    """Multilayer EXR of the whole picture, as ``renderfarm.media.merging`` writes it."""
    output_dir: str
    frame: int
    log_path: str
    """File to which Blender's output goes from this request on."""
    memory_max_bytes: int = 0
    """As for ``Render``."""


@dataclass(frozen=True, kw_only=True)
class Withdraw:
    """Takes back the request that has the same id, unless it was begun already. Not answered, nor is that request."""


@dataclass(frozen=True, kw_only=True)
class Quit:
    """Answered, and then the session ends."""


# --- replies -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The session has started and waits for requests."""

    blender_version: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The scene is open and its settings are made; comes once a request."""

    scene_path: str
    open_seconds: float
    reused: bool
    """It was open with the very same settings already."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Comes several times a second while a frame renders, but not for short frames that follow each other."""

    frame: int
    fraction: float
    """Share of the frame that is done, 0 to 1."""
    note: str
    """What Blender is doing, for people: ``Sample 12/64``."""
    memory_bytes: int
    """Peak resident memory of this request so far."""


@dataclass(frozen=True, kw_only=True)
class FrameDone:
    """A frame's files are whole and in their place."""

    frame: int
    files: tuple[str, ...]
    """Absolute paths below the request's output folder."""
    render_seconds: float
    warm: bool
    """Rendered with data that was kept from an earlier frame."""
    preparation_seconds: float = 0.0
    """How much of that went by before the first samples; 0: nobody knows."""
    devices: tuple[str, ...] = ()
    """What it was really rendered on, such as ``OPTIX: NVIDIA H200``; none: nobody knows."""
    memory_bytes: int = 0
    """Peak resident memory of this request so far; 0: nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The request is done."""

    value: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Error:
    """The request failed; the session goes on."""

    kind: str
    """A ``renderfarm.domain.failures.FailureKind``."""
    message: str
    """One line, for people."""
    traceback: str


Request = Ping | Inspect | Render | Merge | Withdraw | Quit
Reply = Ready | Opened | Progress | FrameDone | Result | Error
Message = Request | Reply

#: By name, each message's class and its fields' types.
_TYPES: dict[str, tuple[type[Message], dict[str, Any]]] = {
    cls.__name__: (cls, typing.get_type_hints(cls)) for cls in typing.get_args(Message)
}


def encode(request_id: int, message: Message) -> bytes:
    """Return the message as one line, line feed included."""
    return json.dumps({"id": request_id, "type": type(message).__name__, **asdict(message)}).encode("ascii") + b"\n"


def decode_request(line: bytes) -> tuple[int, Request]:
    """Return the request in a line, with its id.

    Raises:
        ProtocolError: the line is anything else.
    """
    request_id, message = _decode(line)
    if isinstance(message, Request):
        return request_id, message
    raise ProtocolError(f"{type(message).__name__} is not a request")


def decode_reply(line: bytes) -> tuple[int, Reply]:
    """Return the reply in a line, with its request's id.

    Raises:
        ProtocolError: the line is anything else.
    """
    request_id, message = _decode(line)
    if isinstance(message, Reply):
        return request_id, message
    raise ProtocolError(f"{type(message).__name__} is not a reply")


def _decode(line: bytes) -> tuple[int, Message]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"not a JSON object: {line[:80]!r}")
    request_id, name = fields.pop("id", None), fields.pop("type", None)
    if type(request_id) is not int:
        raise ProtocolError(f"no request id: {line[:80]!r}")
    if not isinstance(name, str) or name not in _TYPES:
        raise ProtocolError(f"unknown message type {name!r}")
    cls, hints = _TYPES[name]
    if fields.keys() != hints.keys():
        raise ProtocolError(f"{name} has the fields {sorted(hints)}, not {sorted(fields)}")
    return request_id, cls(**{key: _value(f"{name}.{key}", hint, fields[key]) for key, hint in hints.items()})


def _value(where: str, hint: Any, value: Any) -> Any:
    """Return a JSON value as a field's type wants it."""
    origin = typing.get_origin(hint) or hint
    if origin is tuple and isinstance(value, list):
        item = typing.get_args(hint)[0]
        return tuple(_value(where, item, part) for part in value)
    if origin is float and type(value) is int:
        return float(value)
    if origin is tuple or type(value) is not origin:  # type(), as a bool is an int to isinstance()
        raise ProtocolError(f"{where} must be {getattr(hint, '__name__', hint)}, not {str(value)[:40]!r}")
    return value


# --- what Blender's words mean -------------------------------------------------------------------------------

_OUT_OF_MEMORY = re.compile(r"out of (\w+ )*memory|[cm]alloc\w* returns null|bad_alloc|cannot allocate memory")
#: What Cycles' devices complain of: contexts, kernels and launches, in the words of intern/cycles/device of 4.5.
_DEVICE = re.compile(
    r"found no cycles device|failed loading \w+ kernel"
    r"|\b(cuda|hip|optix|oneapi|metal)\b.*\b(context|runtime|handle|kernel|queue|error|failed|not found)"
    r"|\bin (cu|hip|optix)\w+ ?\("
)
_STORAGE = re.compile(
    r"no space left|(could not|couldn't|cannot) (write|save)|disk quota exceeded|read-only file system"
)


def failure_kind(text: str, default: str) -> str:
    """Return the failure kind that an error text speaks of."""
    if _OUT_OF_MEMORY.search(text.lower()):
        return "out_of_memory"
    if _DEVICE.search(text.lower()):
        return "device"
    if _STORAGE.search(text.lower()):
        return "storage"
    return default


def one_line(text: str, length_max: int = 500) -> str:
    """Return a text fit for an error's one-line message."""
    line = " ".join(text.split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"
