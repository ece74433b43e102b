"""Dead letters: messages that the queue has put aside, because nobody could deal with them."""

from __future__ import annotations

from collections.abc import Collection

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.errors import NotFound
from renderfarm.ports import DeadLetter, Farm


def list_dead_letters(farm: Farm, principal: Principal, limit: int) -> list[DeadLetter]:
    """Return what was put aside, oldest first. Raises FarmUnavailable."""
    authorise(principal, Permission.FARM_READ)
    return farm.queue.dead(limit)


def replay_dead_letters(farm: Farm, principal: Principal, ids: Collection[str] | None) -> int:
    """Put dead letters (None: all) back into the queue; return how many those were.

    Raises:
        NotFound: none of the ids is a dead letter's.
        FarmUnavailable: the queue does not answer.
    """
    authorise(principal, Permission.FARM_REPAIR)
    replayed = farm.queue.replay(ids)
    if ids and not replayed:
        raise NotFound(f"no dead letter {', '.join(sorted(ids))[:100]}")
    farm.compute.wake()
    return replayed
