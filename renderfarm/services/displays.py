"""How a task's pictures are seen: its scene's view settings, through the colours of this machine's Blender."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.models import Task
from renderfarm.errors import InvalidSettings
from renderfarm.settings import Settings

if TYPE_CHECKING:  # its libraries are large, and few processes look at pictures
    from renderfarm.media.display import Display

log = logging.getLogger(__name__)


def display_of(settings: Settings, task: Task, facts: SceneFacts | None) -> Display | None:
    """Return what shows linear light as the task's scene does.

    None, which means the plain sRGB curve: the scene was inspected before anybody looked at its colours, or no Blender
    is here that knows its view.
    """
    from renderfarm.media.colour_configs import find_config
    from renderfarm.media.display import Display

    scene = None if facts is None else facts.scene(task.settings.scene)
    config = find_config(settings.blender)
    if scene is None or scene.view_settings is None or config is None:
        return None
    return _usable(Display(config=config, settings=scene.view_settings))


@lru_cache(maxsize=64)
def _usable(display: Display) -> Display | None:
    import numpy as np

    try:
        display.encode(np.zeros((1, 1, 3), np.float32))
    except InvalidSettings as error:
        log.warning("pictures are shown by the plain sRGB curve: %s", error)
        return None
    return display
