"""The queue between what is accepted and what is scheduled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message taken from the queue, to be acknowledged after the durable write that it caused."""

    tag: int
    topic: str
    key: str


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that was put aside because nobody could deal with it."""

    id: str
    topic: str
    key: str
    reason: str
    died_at: float


class Queue(Protocol):
    """At least once, in about the order of publishing. Opens its connection when it is first needed.

    Every method raises FarmUnavailable while the queue does not answer; nothing is lost by that.
    """

    def publish(self, messages: Sequence[tuple[str, str]]) -> None:
        """Store (topic, key) pairs; return once they are safe."""

    def take(self, limit: int) -> list[Delivery]:
        """Take up to ``limit`` messages that nobody else holds; empty if there are none now."""

    def acknowledge(self, tags: Sequence[int]) -> None: ...
    def release(self, tags: Sequence[int]) -> None:
        """Give back what could not be dealt with now; it is taken again, and it does not count against it."""

    def bury(self, tags: Sequence[int], reason: str) -> None:
        """Put aside as dead letters what nobody can deal with.

        A message whose consumer has died with it ``DELIVERIES_MAX`` times is buried by the queue itself.
        """

    def on_arrival(self, wake: Callable[[], None]) -> None:
        """From now on call ``wake``, from any thread, when there may be something to take."""

    def dead(self, limit: int) -> list[DeadLetter]:
        """Return what was put aside, oldest first; it stays there."""

    def replay(self, ids: Collection[str] | None) -> int:
        """Put dead letters (None: all) back at the end of the queue; return how many those were."""

    def check(self) -> None:
        """Raise FarmUnavailable unless the queue answers."""

    def close(self) -> None: ...


#: After so many deliveries whose consumer died without an answer, a message is put aside.
DELIVERIES_MAX = 5
