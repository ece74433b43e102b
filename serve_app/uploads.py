"""Taking in an upload: the file goes straight to the farm's own disk, in a thread, and is gone when its route is done.

FastAPI's ``UploadFile`` would spool to the system's temporary folder, which may be small and in memory.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import anyio
from anyio.to_thread import run_sync
from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from renderfarm.errors import InvalidInput, StorageFull
from serve_app.problems import TooLarge
from serve_app.schemas.requests import NAME_LENGTH_MAX

_FILE_FIELD = "file"
_TEXT_FIELDS = ("name", "main")
_FIELD_BYTES_MAX = 4096
#: What a form may hold beside the file's bytes.
FORM_OVERHEAD_BYTES_MAX = 64 * 1024
#: Bytes gathered before a thread writes them: a hop costs about 0.1 ms.
_GATHERED_BYTES = 1024 * 1024
_SUFFIX = ".part"
#: An upload that nobody has written to for this long belongs to a farm that was killed.
_ABANDONED_AFTER_S = 3600.0

#: The form, for the OpenAPI page.
FORM_SCHEMA = {
    "type": "object",
    "required": [_FILE_FIELD],
    "additionalProperties": False,
    "properties": {
        _FILE_FIELD: {
            "type": "string",
            "format": "binary",
            "description": "A .blend file, or a zip of a project's folder.",
        },
        "name": {
            "type": "string",
            "maxLength": NAME_LENGTH_MAX,
            "description": "The asset's name; absent: the file's. The same name again makes a new version.",
        },
        "main": {"type": "string", "description": "In a zip of several .blend files: the path of the one to render."},
    },
}


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A whole form."""

    file: Path
    file_name: str
    """As the client named it, without folders; not to be trusted with anything else."""
    name: str | None
    main: str | None


@asynccontextmanager
async def received_upload(request: Request, folder: Path, file_bytes_max: int) -> AsyncIterator[Upload]:
    """Receive a form into ``folder``, and remove its file in the end whatever happens.

    Raises:
        InvalidInput: not a form, cut off, or with other fields than expected.
        TooLarge: the file is larger than ``file_bytes_max``.
        StorageFull: the disk takes no more.
    """
    boundary = _boundary(request)
    path = folder / f"{uuid4().hex}{_SUFFIX}"
    # A client may go at any moment: shielded, nothing is left half-made by that.
    with anyio.CancelScope(shield=True):
        stream = await run_sync(_create, path)
    try:
        try:
            form = _Form(boundary, stream, file_bytes_max)
            await _receive(request, form)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(stream.close)
        yield form.finished(path)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(lambda: path.unlink(missing_ok=True))


def sweep_uploads(folder: Path) -> None:
    """Remove what uploads left behind when their farm was killed."""
    for path in folder.glob(f"*{_SUFFIX}"):
        if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
            path.unlink(missing_ok=True)


def _boundary(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidInput("an upload comes as multipart/form-data with a field named 'file'")
    return options[b"boundary"]


def _create(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except OSError as error:
        raise _disk_error(error) from error


def _disk_error(error: OSError) -> StorageFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the farm's disk is full")
    return StorageFull(f"the farm's disk does not take the upload: {error.strerror or error}")


async def _receive(request: Request, form: _Form) -> None:
    gathered = bytearray()
    async for chunk in request.stream():
        gathered += chunk
        if len(gathered) >= _GATHERED_BYTES:
            await run_sync(form.write, bytes(gathered))
            gathered.clear()
    await run_sync(form.write, bytes(gathered))


@dataclass
class _Part:
    """A field of the form while it arrives."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_name: bytes = b""
    header_value: bytes = b""
    field_name: str = ""
    text: bytearray = field(default_factory=bytearray)


class _Form:
    """Takes a multipart body apart: the file goes to disk, the short fields stay in memory. Blocks while it writes."""

    def __init__(self, boundary: bytes, target: BinaryIO, file_bytes_max: int) -> None:
        self._target = target
        self._file_bytes_max = file_bytes_max
        self._file_bytes = 0
        self._file_name: str | None = None
        self._texts: dict[str, str] = {}
        self._part = _Part()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidInput("the upload is not a well-formed multipart form") from error
        except OSError as error:
            raise _disk_error(error) from error

    def finished(self, path: Path) -> Upload:
        if not self._ended:
            raise InvalidInput("the upload is cut off before its end")
        if self._file_name is None:
            raise InvalidInput("the upload has no file: a form field named 'file' with a file name")
        return Upload(file=path, file_name=self._file_name, name=self._texts.get("name"), main=self._texts.get("main"))

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _on_header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.lower()] = part.header_value
        part.header_name, part.header_value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition"))
        name = self._part.field_name = _decoded(options.get(b"name", b""))
        given = self._file_name is not None if name == _FILE_FIELD else name in self._texts
        if given:
            raise InvalidInput(f"the upload has two fields named {name!r}")
        if name == _FILE_FIELD:
            self._file_name = _base_name(_decoded(options.get(b"filename", b"")))
        elif name not in _TEXT_FIELDS:
            raise InvalidInput(f"the upload has a field named {name[:40]!r}; there is: file, name, main")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.field_name == _FILE_FIELD:
            self._file_bytes += end - start
            if self._file_bytes > self._file_bytes_max:
                raise TooLarge(f"the file is larger than {self._file_bytes_max} bytes, the most this farm accepts")
            self._target.write(memoryview(data)[start:end])
        else:
            self._part.text += data[start:end]
            if len(self._part.text) > _FIELD_BYTES_MAX:
                raise InvalidInput(f"{self._part.field_name} is too long")

    def _on_part_end(self) -> None:
        if self._part.field_name != _FILE_FIELD:
            self._texts[self._part.field_name] = _checked_text(self._part.field_name, _decoded(self._part.text))

    def _on_end(self) -> None:
        self._ended = True


def _decoded(raw: bytes | bytearray) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("the upload's names and fields must be UTF-8") from error


def _base_name(file_name: str) -> str:
    """Return the name without folders. Raises InvalidInput when there is none."""
    base = file_name.replace("\\", "/").rpartition("/")[2]
    if not base:
        raise InvalidInput("the uploaded file has no name")
    return base


def _checked_text(field_name: str, text: str) -> str:
    longest = NAME_LENGTH_MAX if field_name == "name" else _FIELD_BYTES_MAX
    if not text or len(text) > longest or not text.isprintable():
        raise InvalidInput(f"{field_name} must be 1 to {longest} printable characters")
    return text
