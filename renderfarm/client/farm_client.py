"""One method for each thing that the HTTP API can do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from renderfarm.client.events import follow
from renderfarm.client.files import ReportingFile, write_whole
from renderfarm.client.replies import JSON, Event, LogSlice, OnProgress, Picture
from renderfarm.client.transport import Transport, retries
from renderfarm.errors import AssetNotReady, FarmUnavailable, NotFound, RenderfarmError

#: After the last byte the farm still checks, unpacks and stores the upload.
_UPLOAD_ANSWER_S = 3600.0
#: The farm itself waits two minutes for the inspection of an asset.
_SUBMIT_ANSWER_S = 180.0
#: A check lists the whole object store.
_CHECK_ANSWER_S = 3600.0
#: Pictures that nobody has asked for before have to be made.
_PICTURE_S = 600.0
_PAGE = 1000


class FarmClient:
    """A farm's API at a URL.

    Every method raises ``renderfarm.errors``: what the farm's answer names, or ``FarmUnavailable`` in one line.
    Requests that change nothing are repeated when the farm does not answer; the others never are.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        self._transport = Transport(url, timeout_s)

    @property
    def url(self) -> str:
        """The farm's address, without a slash at its end."""
        return self._transport.url

    def __enter__(self) -> FarmClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # --- assets ----------------------------------------------------------------------------------------------

    def upload_asset(
        self,
        file: Path,
        *,
        file_name: str | None = None,
        name: str | None = None,
        main: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> JSON:
        """Upload a .blend, or a zip of a project with the path of its ``main`` .blend; return the asset.

        Raises:
            OSError: the file cannot be read.
            InvalidInput: the farm does not take it.
        """
        fields = {key: value for key, value in (("name", name), ("main", main)) if value is not None}
        with ReportingFile(file, on_progress) as stream:
            files = {"file": (_as_unicode(file_name or file.name), stream, "application/octet-stream")}
            response = self._transport.send(
                "POST", "/api/assets", data=fields, files=files, read_timeout_s=_UPLOAD_ANSWER_S
            )
        return _object(response)

    def get_asset(self, asset_id: str) -> JSON:
        return self._get(_path("api/assets", asset_id))

    def list_assets(self, *, limit: int = 50, offset: int = 0) -> JSON:
        return self._get("/api/assets", limit=limit, offset=offset)

    # --- tasks -----------------------------------------------------------------------------------------------

    def submit_task(
        self,
        asset_id: str,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        priority: int = 50,
        wait_s: float = 900.0,
    ) -> JSON:
        """Submit a task; return it. Waits while the asset is still being inspected.

        Raises:
            AssetNotReady: it still is after ``wait_s``.
            InvalidInput: the scene cannot satisfy the settings, or the asset was rejected.
        """
        body = {"asset_id": asset_id, "name": name, "priority": priority, "settings": dict(settings or {})}
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return self._post("/api/tasks", body, read_timeout_s=_SUBMIT_ANSWER_S)
            except AssetNotReady:  # Nothing was queued, so asking again is safe.
                if time.monotonic() >= deadline:
                    raise

    def get_task(self, task_id: str) -> JSON:
        return self._get(_path("api/tasks", task_id))

    def list_tasks(
        self,
        *,
        status: Sequence[str] = (),
        text: str | None = None,
        sort: str = "created_at",
        descending: bool = True,
        limit: int = 50,
        offset: int = 0,
    ) -> JSON:
        """List tasks in these states (none: all) with ``text`` in their name."""
        order = "desc" if descending else "asc"
        return self._get(
            "/api/tasks", status=list(status), text=text, sort=sort, order=order, limit=limit, offset=offset
        )

    def get_status(self, task_id: str) -> JSON:
        return self._get(_path("api/tasks", task_id, "status"))

    def cancel_task(self, task_id: str) -> JSON:
        return self._post(_path("api/tasks", task_id, "cancel"))

    def pause_task(self, task_id: str) -> JSON:
        return self._post(_path("api/tasks", task_id, "pause"))

    def resume_task(self, task_id: str) -> JSON:
        return self._post(_path("api/tasks", task_id, "resume"))

    def retry_task(self, task_id: str, frames: str | None = None) -> JSON:
        """Render again everything that failed or was cancelled, or the named frames."""
        return self._post(_path("api/tasks", task_id, "retry"), {"frames": frames})

    # --- units -----------------------------------------------------------------------------------------------

    def list_units(self, task_id: str, *, status: Sequence[str] = (), limit: int = 100, offset: int = 0) -> JSON:
        return self._get(_path("api/tasks", task_id, "units"), status=list(status), limit=limit, offset=offset)

    def get_unit(self, task_id: str, unit_id: str) -> JSON:
        """Return a unit with its attempts."""
        return self._get(_path("api/tasks", task_id, "units", unit_id))

    def get_unit_script(self, task_id: str, unit_id: str) -> str:
        return self._transport.get(_path("api/tasks", task_id, "units", unit_id, "script")).text

    def read_unit_log(
        self,
        task_id: str,
        unit_id: str,
        *,
        attempt: int | None = None,
        offset: int = 0,
        limit: int = 1 << 20,
        tail: int | None = None,
    ) -> LogSlice:
        """Read Blender's output of an attempt (None: the latest), also while it runs."""
        params = {"attempt": attempt, "offset": offset, "limit": limit, "tail": tail}
        response = self._transport.get(_path("api/tasks", task_id, "units", unit_id, "log"), params)
        return LogSlice(
            data=response.content,
            attempt=int(response.headers["X-Log-Attempt"]),
            offset=int(response.headers["X-Log-Offset"]),
            next_offset=int(response.headers["X-Log-Next-Offset"]),
            complete=response.headers["X-Log-Complete"] == "true",
        )

    def follow_unit_log(
        self,
        task_id: str,
        unit_id: str,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        poll_s: float = 0.5,
    ) -> Iterator[bytes]:
        """Yield Blender's output of one attempt until that attempt has ended."""
        part = self.read_unit_log(task_id, unit_id, attempt=attempt, tail=tail)
        while True:
            if part.data:
                yield part.data
            if part.complete:
                return
            if not part.data:
                time.sleep(poll_s)
            # The first slice decides which attempt it is; 0 means that none has begun.
            attempt = part.attempt or attempt
            part = self.read_unit_log(task_id, unit_id, attempt=attempt, offset=part.next_offset)

    # --- log and events --------------------------------------------------------------------------------------

    def list_log(self, task_id: str, *, after: int = 0, limit: int = 1000) -> JSON:
        """Return execution log entries behind the one of id ``after``, and ``next_after``."""
        return self._get(_path("api/tasks", task_id, "log"), after=after, limit=limit)

    def iterate_log(self, task_id: str, *, after: int = 0) -> Iterator[JSON]:
        """Yield every execution log entry of a task, oldest first."""
        while True:
            stretch = self.list_log(task_id, after=after, limit=_PAGE)
            yield from stretch["items"]
            if len(stretch["items"]) < _PAGE:
                return
            after = stretch["next_after"]

    def events(self, task_id: str | None = None, last_event_id: int | None = None) -> Generator[Event]:
        """Yield events behind ``last_event_id``, across broken connections.

        A task's events begin with its first and end with its last; the farm's begin now and never end.

        Raises:
            FarmUnavailable: the farm has been away for 30 seconds.
        """
        path = "/api/events" if task_id is None else _path("api/tasks", task_id, "events")
        return follow(self._transport, path, last_event_id)

    # --- outputs ---------------------------------------------------------------------------------------------

    def list_outputs(self, task_id: str, *, limit: int = 100, offset: int = 0) -> JSON:
        return self._get(_path("api/tasks", task_id, "outputs"), limit=limit, offset=offset)

    def iterate_outputs(self, task_id: str) -> Iterator[JSON]:
        """Yield every output of a task, by camera and frame."""
        return _every_item(lambda offset: self.list_outputs(task_id, limit=_PAGE, offset=offset))

    def download_output(
        self, task_id: str, output: Mapping[str, Any], target: Path, on_progress: OnProgress | None = None
    ) -> None:
        """Write an output (an object of ``list_outputs``) to ``target``, which appears only when it is whole.

        Raises:
            OSError: ``target`` cannot be written.
            FarmUnavailable: the bytes do not arrive, or not the right ones.
        """
        path = _path("api/tasks", task_id, "outputs", output["id"])
        for attempt in retries():
            with attempt, self._transport.download(path) as response:
                write_whole(
                    response.iter_bytes(),
                    target,
                    sha256=output["sha256"],
                    size_bytes=output["size_bytes"],
                    on_progress=on_progress,
                )

    # --- pictures --------------------------------------------------------------------------------------------

    def list_flaws(self, task_id: str, *, limit: int = 100, offset: int = 0) -> JSON:
        """Return ``items``: what looks wrong with a task's pictures so far, by camera and frame."""
        return self._get(_path("api/tasks", task_id, "flaws"), limit=limit, offset=offset)

    def iterate_flaws(self, task_id: str) -> Iterator[JSON]:
        """Yield all of it."""
        return _every_item(lambda offset: self.list_flaws(task_id, limit=_PAGE, offset=offset))

    def get_thumbnail(self, task_id: str, output_id: str, *, side_px: int = 512) -> Picture:
        """Return an output as a WebP whose longer side has at most so many pixels."""
        return self._picture(_path("api/tasks", task_id, "outputs", output_id, "thumbnail"), side=side_px)

    def get_contact_sheet(self, task_id: str, camera: str | None = None) -> Picture:
        """Return a JPEG of a camera's frames (None: the task's first camera). Raises NotFound while there are none."""
        return self._picture(_path("api/tasks", task_id, "contact-sheet"), camera=camera)

    def get_preview(
        self,
        task_id: str,
        *,
        frame: int | None = None,
        camera: str | None = None,
        width_px: int = 512,
        height_px: int = 512,
        file_format: str = "webp",
        etag: str | None = None,
    ) -> Picture | None:
        """Return a frame (None: the task's first) as far as it is, ``webp`` or ``ppm``, no larger than that.

        None is returned if it is still the picture of an ``etag`` that is given.

        Raises:
            NotFound: there is nothing to see of it yet.
        """
        params = {"frame": frame, "camera": camera, "width": width_px, "height": height_px, "format": file_format}
        headers = {} if etag is None else {"If-None-Match": etag}
        path = _path("api/tasks", task_id, "preview")
        answer = self._transport.send("GET", path, accept=(HTTPStatus.NOT_MODIFIED,), params=params, headers=headers)
        return None if answer.status_code == HTTPStatus.NOT_MODIFIED else _as_picture(answer)

    def _picture(self, path: str, **params: Any) -> Picture:
        return _as_picture(self._transport.send("GET", path, params=params, read_timeout_s=_PICTURE_S))

    # --- the farm --------------------------------------------------------------------------------------------

    def list_nodes(self) -> list[JSON]:
        nodes: list[JSON] = self._get("/api/nodes")["items"]
        return nodes

    def check_farm(
        self,
        *,
        repair: bool = False,
        objects: bool = True,
        message_age_s: float | None = None,
        object_grace_s: float | None = None,
    ) -> JSON:
        """Compare the places that know a unit's state; return ``findings``. Takes minutes for a large object store.

        Args:
            repair: mend what is found.
            objects: also look into the object store.
            message_age_s: a message older than this is late.
            object_grace_s: younger objects may still be on their way into a row.
        """
        params = {"objects": objects, "message_age_s": message_age_s, "object_grace_s": object_grace_s}
        method = "POST" if repair else "GET"
        return _object(self._transport.send(method, "/api/check", read_timeout_s=_CHECK_ANSWER_S, params=params))

    def list_dead_letters(self, *, limit: int = 100) -> JSON:
        """Return ``items``: messages that the queue has put aside, oldest first."""
        return self._get("/api/dead-letters", limit=limit)

    def replay_dead_letters(self, ids: Sequence[str] | None = None) -> JSON:
        """Put dead letters (None: all) back into the queue; return how many were ``replayed``. Raises NotFound."""
        return self._post("/api/dead-letters/replay", None if ids is None else {"ids": list(ids)})

    def is_alive(self) -> bool:
        """Tell whether a farm answers at the URL."""
        try:
            answer = self._transport.send("GET", "/healthz")
        except RenderfarmError:
            return False
        return answer.status_code == HTTPStatus.OK

    def check_ready(self) -> JSON:
        """Return whether the farm can work: ``status``, and each of its ``services``."""
        answer = _object(self._transport.send("GET", "/readyz", accept=(HTTPStatus.SERVICE_UNAVAILABLE,)))
        if "services" not in answer:
            raise FarmUnavailable(f"the farm at {self.url} does not tell whether it is ready")
        return answer

    def _get(self, path: str, **params: Any) -> JSON:
        return _object(self._transport.get(path, params))

    def _post(self, path: str, body: JSON | None = None, *, read_timeout_s: float | None = None) -> JSON:
        # In ASCII, so that the farm, not an encoder, says what it thinks of a name that is no Unicode.
        text: dict[str, Any] = {}
        if body is not None:
            text = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        return _object(self._transport.send("POST", path, read_timeout_s=read_timeout_s, **text))


def _path(prefix: str, *parts: str) -> str:
    """Join a path; ids come from people, and may hold anything. Raises NotFound for one that no path can hold."""
    for part in parts:
        if part in ("", ".", ".."):
            raise NotFound(f"{part!r} is no id")
    return "/".join(("", prefix, *(quote(part, safe="", errors="replace") for part in parts)))


def _as_unicode(file_name: str) -> str:
    """Return a file's name without the bytes that are no UTF-8, which a disk may hold and a form may not."""
    return file_name.encode("utf-8", "replace").decode("utf-8")


def _as_picture(response: httpx2.Response) -> Picture:
    headers = response.headers
    return Picture(data=response.content, media_type=headers.get("Content-Type", ""), etag=headers.get("ETag", ""))


def _object(response: httpx2.Response) -> JSON:
    """Return the JSON object of an answer. Raises RenderfarmError when whoever answered is no farm."""
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RenderfarmError(f"{response.request.url} is not a farm: its answer makes no sense")
    return value


def _every_item(page_at: Callable[[int], JSON]) -> Iterator[JSON]:
    offset = 0
    while True:
        items = page_at(offset)["items"]
        yield from items
        if len(items) < _PAGE:
            return
        offset += len(items)
