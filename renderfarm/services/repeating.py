"""Doing a change again that did not happen: a database that restarts, or two that wait for each other."""

from __future__ import annotations

import stamina

from renderfarm.errors import FarmUnavailable, RolledBack

#: As long as somebody at the other end of a request waits gladly: a database restarts within it.
_PATIENCE_S = 10.0
_WAIT_MAX_S = 1.0

#: For a use case of one transaction. Not when it is unknown whether that happened: the caller is told.
repeated_if_undone = stamina.retry(
    on=RolledBack, attempts=None, timeout=_PATIENCE_S, wait_initial=0.05, wait_max=_WAIT_MAX_S, wait_jitter=0.1
)

#: For a change that finds out by itself whether it has happened already.
repeated = stamina.retry(
    on=FarmUnavailable, attempts=None, timeout=_PATIENCE_S, wait_initial=0.05, wait_max=_WAIT_MAX_S, wait_jitter=0.1
)
