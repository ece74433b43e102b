"""A look at what an attempt has rendered, before it is committed. Blocks; runs in threads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from actors.blender_session import SessionFailed
from renderfarm.domain.failures import Failure, FailureKind, is_last_try
from renderfarm.domain.flaws import JUDGED_SUFFIXES, Glance
from renderfarm.domain.models import UnitKind
from renderfarm.domain.render_settings import FlawedFrames
from renderfarm.errors import BadPicture
from renderfarm.services.displays import display_of
from renderfarm.services.results import Assignment
from renderfarm.settings import Settings

if TYPE_CHECKING:
    from renderfarm.media.display import Display

log = logging.getLogger(__name__)


class Looking:
    """Looks at the pictures of one attempt, each once."""

    def __init__(self, settings: Settings, assignment: Assignment) -> None:
        self._settings = settings
        self._assignment = assignment

    def glances(self, paths: Sequence[Path], folder: Path) -> dict[Path, Glance]:
        """Return what the pictures among a frame's files look like, as far as they can be judged.

        File Output nodes, whose files are in folders below, may write masks and data, where black is no flaw.

        Raises:
            BadPicture: a picture is truncated.
            SessionFailed: one looks wrong, and the task wants it to be rendered again.
        """
        unit = self._assignment.unit
        if unit.kind not in (UnitKind.RENDER, UnitKind.MERGE) or unit.part is not None:
            return {}
        seen = {path: self._glance(path) for path in paths if path.parent == folder}
        glances = {path: glance for path, glance in seen.items() if glance is not None}
        for path, glance in glances.items():
            if glance.flaws and self._wants_another_try:
                message = f"{path.name}: {', '.join(flaw.message for flaw in glance.flaws)}"
                raise SessionFailed(Failure(kind=FailureKind.FLAWED, message=message))
        return glances

    @property
    def _wants_another_try(self) -> bool:
        task, failures = self._assignment.task, self._assignment.unit.failures
        wanted = task is not None and task.settings.flawed is FlawedFrames.RETRY
        return wanted and not is_last_try(failures, FailureKind.FLAWED)

    def _glance(self, path: Path) -> Glance | None:
        if path.suffix.lower() not in JUDGED_SUFFIXES:
            log.info("%s is not judged: files of its kind cannot be", path)
            return None
        from renderfarm.media.glances import glance_at  # its libraries are large: a worker that is idle needs none

        try:
            return glance_at(path, self._display)
        except BadPicture:
            raise
        except Exception as error:  # noqa: BLE001 - a frame is not lost because nobody can judge it
            log.warning("%s is not judged: %s: %s", path, type(error).__name__, error)
            return None

    @cached_property
    def _display(self) -> Display | None:
        task = self._assignment.task
        return None if task is None else display_of(self._settings, task, self._assignment.asset.facts)
