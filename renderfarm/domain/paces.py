"""How long frames take, as far as has been seen: what decides whether units may be given ahead, or are to be cut."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

#: Weight of the latest attempt: frames of a scene differ, and the newest is the most like the next.
_WEIGHT = 0.3
_KEPT_MAX = 20_000


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Of a task's or an asset's frames."""

    frame_s: float
    """Mean seconds a frame."""
    preparation_s: float | None
    """The least that has gone by before a cold frame's first samples, as Blender's first ever takes longer; None:
    nobody knows."""
    open_s: float | None = None
    """The least that opening the file has taken; None: nobody knows."""


class Paces:
    """Paces by task, and by asset for tasks of which nothing is done yet."""

    def __init__(self) -> None:
        self._paces: OrderedDict[str, Pace] = OrderedDict()

    def note(
        self,
        task_id: str,
        asset_id: str,
        frames: int,
        seconds: float,
        preparation_s: float | None = None,
        open_s: float | None = None,
    ) -> None:
        """Learn from an attempt."""
        if frames <= 0:
            return
        for key in (task_id, asset_id):
            before = self._paces.pop(key, None)
            frame_s = seconds / frames
            if before is not None:
                frame_s = before.frame_s + _WEIGHT * (frame_s - before.frame_s)
                preparation_s = _least(preparation_s, before.preparation_s)
                open_s = _least(open_s, before.open_s)
            self._paces[key] = Pace(frame_s=frame_s, preparation_s=preparation_s, open_s=open_s)
        while len(self._paces) > _KEPT_MAX:
            self._paces.popitem(last=False)

    def of_task(self, task_id: str | None) -> Pace | None:
        """Return the pace of a task's own frames; None: none of them is known."""
        return None if task_id is None else self._paces.get(task_id)

    def frame_seconds(self, task_id: str | None, asset_id: str, *, is_cold: bool = False) -> float | None:
        """Return what a frame will probably take, or one that is rendered cold, file and all; None: nobody knows."""
        if task_id is None:
            return None
        found = self._paces.get(task_id) or self._paces.get(asset_id)
        if found is None:
            return None
        return found.frame_s + ((found.open_s or 0.0) + (found.preparation_s or 0.0) if is_cold else 0.0)


def _least(*some_s: float | None) -> float | None:
    return min((one_s for one_s in some_s if one_s is not None), default=None)
