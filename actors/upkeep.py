"""What the scheduler's process does beside scheduling: it compares the places that know a unit's state, and mends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from renderfarm.errors import Deposed, FarmUnavailable, StorageFull
from renderfarm.ports import Farm
from renderfarm.services.reconcile.loop import Reconciler

log = logging.getLogger(__name__)

_STATUSES_EVERY_S = 1.0
_QUICK_LOOK_EVERY_S = 10.0
_SWEEP_EVERY_S = 3600.0


class Upkeep:
    """A thread for each kind of look, as some take minutes; all of them end when the scheduler is deposed or stops."""

    def __init__(self, farm: Farm, epoch: int) -> None:
        reconciler = Reconciler(farm, epoch)
        self._over = threading.Event()
        for name, look, every_s in (
            ("statuses", reconciler.keep_statuses, _STATUSES_EVERY_S),
            ("quick look", reconciler.reconcile_once, _QUICK_LOOK_EVERY_S),
            ("sweep", reconciler.sweep, _SWEEP_EVERY_S),
        ):
            threading.Thread(target=self._run, args=(name, look, every_s), name=name, daemon=True).start()

    def stop(self) -> None:
        """Begin no further look."""
        self._over.set()

    def _run(self, name: str, look: Callable[[], object], every_s: float) -> None:
        while not self._over.wait(every_s):
            try:
                look()
            except Deposed as error:
                log.info("no more %s: %s", name, error)
                self._over.set()
            except (FarmUnavailable, StorageFull) as error:
                log.info("no %s now: %s", name, error)
            except Exception:
                # It only watches over others: scheduling goes on without it.
                log.exception("the %s failed", name)
