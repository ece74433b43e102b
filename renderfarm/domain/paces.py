"""How long frames take, as far as has been seen: what decides whether units may be given ahead."""

from __future__ import annotations

from collections import OrderedDict

#: Weight of the latest attempt: frames of a scene differ, and the newest is the most like the next.
_WEIGHT = 0.3
_KEPT_MAX = 20_000


class Paces:
    """Mean seconds a frame, by task, and by asset for tasks of which nothing is done yet."""

    def __init__(self) -> None:
        self._frame_s: OrderedDict[str, float] = OrderedDict()

    def note(self, task_id: str, asset_id: str, frames: int, seconds: float) -> None:
        """Learn from an attempt."""
        if frames <= 0:
            return
        for key in (task_id, asset_id):
            before = self._frame_s.pop(key, None)
            now = seconds / frames
            self._frame_s[key] = now if before is None else before + _WEIGHT * (now - before)
        while len(self._frame_s) > _KEPT_MAX:
            self._frame_s.popitem(last=False)

    def frame_seconds(self, task_id: str | None, asset_id: str) -> float | None:
        """Return what a frame will probably take; None: nobody knows."""
        if task_id is None:
            return None
        found = self._frame_s.get(task_id)
        return self._frame_s.get(asset_id) if found is None else found
