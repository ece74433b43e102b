"""A task's outputs as they are committed, fetched into a folder if there is one."""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from renderfarm.client import JSON, FarmClient
from renderfarm.domain.models import OutputRole
from renderfarm.errors import InvalidInput, RenderfarmError, StorageFull


class Outputs:
    """What a task has put out so far."""

    def __init__(self, client: FarmClient, task_id: str, folder: Path | None) -> None:
        self._client = client
        self._task_id = task_id
        self._folder = folder
        self._seen: dict[str, tuple[JSON, Path | None]] = {}
        self.listing_s = 0.0
        """How long the latest listing took."""

    def fetch_new(self) -> Iterator[tuple[JSON, Path | None]]:
        """Yield each output that was not there before, with its path here once it is fetched; movies last.

        Raises:
            StorageFull, InvalidInput: the folder does not take it.
        """
        started = time.monotonic()
        listed = list(self._client.iterate_outputs(self._task_id))
        self.listing_s = time.monotonic() - started
        for output in sorted(listed, key=_order):
            if output["id"] not in self._seen:
                path = self._fetch(output) if self._folder is not None else None
                self._seen[output["id"]] = (output, path)
                yield output, path

    def _fetch(self, output: JSON) -> Path:
        assert self._folder is not None
        path = self._folder.joinpath(*_harmless(output["name"]).parts)
        try:
            self._client.download_output(self._task_id, output, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        return path

    def as_json(self) -> list[JSON]:
        """Return what ``--json`` tells of each output, in order of camera and frame, movies last.

        A frame that was rendered again has taken the place of the one before.
        """
        latest = {output["name"]: (output, path) for output, path in self._seen.values()}
        ordered = sorted(latest.values(), key=lambda item: _order(item[0]))
        return [
            {
                "frame": output["frame"],
                "role": output["role"],
                "camera": output["camera"],
                "path": None if path is None else str(path),
                "sha256": output["sha256"],
                "render_seconds": output["render_seconds"],
            }
            for output, path in ordered
        ]


def is_movie(output: Mapping[str, Any]) -> bool:
    """Tell a movie from a frame: it has the number of its first one."""
    return bool(output["role"] == OutputRole.MOVIE)


def _order(output: JSON) -> tuple[str, bool, int, str]:
    return output["camera"] or "", is_movie(output), output["frame"], output["name"]


def check_writable(folder: Path) -> None:
    """Make a file in the folder for a moment, or where it will be made: a task that fails leaves no empty one.

    Raises:
        InvalidInput, StorageFull: it cannot be written.
    """
    try:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> RenderfarmError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no room left to write {path}")
    return InvalidInput(f"cannot write {path}: {error.strerror or error}")


def _harmless(name: str) -> PurePosixPath:
    """Return an output's name as a path that stays in its folder: it comes over the network."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise RenderfarmError(f"the farm names an output {name!r}, which leaves the output folder")
    return path
