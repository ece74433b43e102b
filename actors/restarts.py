"""Workers that died: why they did, and when each of them may be started again."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_AFTER_S = 3.0
_AFTER_MAX_S = 60.0


@dataclass(frozen=True, kw_only=True)
class _Death:
    reason: str
    failed_starts: int
    """Deaths in a row before the worker had said what it is; 0: it was in service."""
    restart_at_s: float


class Restarts:
    """All times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._deaths: dict[str, _Death] = {}

    def note_death(self, worker_id: str, reason: str, now_s: float, *, was_in_service: bool) -> None:
        """Remember a death; the wait doubles for a worker that keeps dying at its start."""
        earlier = self._deaths.get(worker_id)
        failed_starts = 0 if was_in_service else 1 + (earlier.failed_starts if earlier else 0)
        after_s = min(_AFTER_MAX_S, _FIRST_AFTER_S * 2.0 ** max(0, failed_starts - 1))
        self._deaths[worker_id] = _Death(reason=reason, failed_starts=failed_starts, restart_at_s=now_s + after_s)

    def note_service(self, worker_id: str) -> None:
        """Forget the deaths of a worker that has started well."""
        self._deaths.pop(worker_id, None)

    def may_start(self, worker_id: str, now_s: float) -> bool:
        """Tell whether the worker never died, or long enough ago."""
        death = self._deaths.get(worker_id)
        return death is None or death.restart_at_s <= now_s

    def reason(self, worker_id: str) -> str | None:
        """Return in one line why the worker is not there; None if it never died."""
        death = self._deaths.get(worker_id)
        if death is None:
            return None
        return f"{worker_id} {'does not start' if death.failed_starts else 'has died'}: {death.reason}"
