"""A task's pictures in the order in which they are seen: for each camera, frame after frame."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.models import Output, OutputRole, Task
from renderfarm.domain.planning import camera_folders, task_cameras
from renderfarm.errors import InvalidSettings, NotFound
from renderfarm.ports import Transaction


@dataclass(frozen=True, kw_only=True)
class Shoot:
    """A task, and what is known of its scene."""

    task: Task
    facts: SceneFacts
    scene: SceneInfo

    @property
    def folders(self) -> dict[str | None, str]:
        """The folder of each camera's pictures."""
        cameras = task_cameras(self.task.settings, self.scene)
        return dict(zip(cameras, camera_folders(cameras), strict=True))

    def camera(self, name: str | None) -> str | None:
        """Return the camera of that name as the task knows it; None: the first one.

        Raises:
            InvalidSettings: the task does not render from it.
        """
        cameras = list(self.folders)
        if name is None or name in cameras:
            return cameras[0] if name is None else name
        if cameras == [None] and name == self.scene.camera:
            return None
        names = ", ".join(camera or self.scene.camera or "the scene's own" for camera in cameras)
        raise InvalidSettings(f"the task does not render from {name[:80]!r}; its cameras: {names[:400]}")


def shoot_of(tx: Transaction, task: Task) -> Shoot:
    """Return what is known of a task's scene. Raises NotFound."""
    facts = tx.assets.facts(task.asset_id)
    scene = None if facts is None else facts.scene(task.settings.scene)
    if facts is None or scene is None:
        raise NotFound(f"nothing is known of the scene of task {task.id}")
    return Shoot(task=task, facts=facts, scene=scene)


def film(outputs: Iterable[Output], folder: str) -> list[Output]:
    """Return the pictures in a camera's folder in order of their frames, one for each frame.

    What File Output nodes wrote is in folders of its own, and is not taken; of stereo pictures, the first is.
    """
    pictures: dict[int, Output] = {}
    for output in outputs:
        if output.role is OutputRole.PICTURE and posixpath.dirname(output.name) == folder:
            pictures.setdefault(output.frame, output)
    return [picture for _, picture in sorted(pictures.items())]
