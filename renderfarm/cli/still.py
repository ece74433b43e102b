"""A still that is rendered in parts, shown while it fills in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from renderfarm.cli.display import Display
from renderfarm.client import FarmClient
from renderfarm.domain.frames import parse_frames
from renderfarm.domain.models import UnitKind
from renderfarm.errors import RenderfarmError

#: The farm reads each new part once for everybody, which takes a while.
_LOOK_EVERY_S = 1.0


class Still:
    """The frame of a task that is rendered in parts at the moment, or was last."""

    def __init__(self, client: FarmClient, task_id: str, display: Display) -> None:
        self._client = client
        self._task_id = task_id
        self._display = display
        self._frame: int | None = None
        """None: no frame has been in parts yet."""
        self._camera: str | None = None
        self._revision: int | None = None
        self._etag: str | None = None
        self._look_at = 0.0

    def look(self, status: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> None:
        """Show what there is of the frame, if that may have changed and there is room for it."""
        self._choose(running)
        is_due = not running or time.monotonic() >= self._look_at
        if self._frame is None or status["revision"] == self._revision or not is_due:
            return
        room_px = self._display.room_px()
        if room_px is None:
            return
        self._revision = status["revision"]
        try:
            self._show(self._frame, room_px)
        except RenderfarmError:
            # The picture is an extra: what is wrong with the farm, everything else will say.
            return
        finally:
            self._look_at = time.monotonic() + _LOOK_EVERY_S

    def _choose(self, running: Sequence[Mapping[str, Any]]) -> None:
        in_parts = [unit for unit in running if unit.get("part") or unit["kind"] == UnitKind.MERGE]
        if in_parts:
            frame, camera = parse_frames(in_parts[0]["frames"])[0], in_parts[0]["camera"]
            if (frame, camera) != (self._frame, self._camera):
                self._frame, self._camera, self._revision, self._etag = frame, camera, None, None

    def _show(self, frame: int, room_px: tuple[int, int]) -> None:
        width_px, height_px = room_px
        picture = self._client.get_preview(
            self._task_id,
            frame=frame,
            camera=self._camera,
            width_px=width_px,
            height_px=height_px,
            file_format="ppm",
            etag=self._etag,
        )
        if picture is not None:
            self._display.show_picture(picture.data)
            self._etag = picture.etag
