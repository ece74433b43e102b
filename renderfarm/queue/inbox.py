"""What has arrived from RabbitMQ and is not acknowledged yet: between the link's thread and those who take."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from renderfarm.ports import Delivery
from renderfarm.queue.channels import Letter

if TYPE_CHECKING:
    from renderfarm.queue.consumer import Consumer


@dataclass(frozen=True, kw_only=True)
class Held:
    """A message that RabbitMQ has handed to us, and waits to hear of."""

    delivery: Delivery
    letter: Letter
    consumer: Consumer
    """Whose channel it came by; only there it can be acknowledged."""
    channel_tag: int


class Inbox:
    """Holds messages for as long as the channel that they came by is open. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tags = itertools.count(1)
        self._waiting: dict[int, Held] = {}
        self._taken: dict[int, Held] = {}
        self._wakes: list[Callable[[], None]] = []
        self.wanted = False
        """Somebody takes: a new connection is to consume at once."""
        self.filled = False
        """Messages arrive here by themselves."""
        self.asked_at = time.monotonic()

    def on_arrival(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    def arrived(self, topic: str, key: str, letter: Letter, consumer: Consumer, channel_tag: int) -> None:
        with self._lock:
            delivery = Delivery(tag=next(self._tags), topic=topic, key=key)
            held = Held(delivery=delivery, letter=letter, consumer=consumer, channel_tag=channel_tag)
            self._waiting[delivery.tag] = held
        for wake in self._wakes:
            wake()

    def take(self, limit: int) -> list[Delivery]:
        with self._lock:
            tags = list(itertools.islice(self._waiting, limit))
            for tag in tags:
                self._taken[tag] = self._waiting.pop(tag)
            return [self._taken[tag].delivery for tag in tags]

    def taken(self, tags: Sequence[int]) -> list[Held]:
        """Return what is still held of these; the others belong to whoever gets them from RabbitMQ again."""
        with self._lock:
            return [self._taken[tag] for tag in tags if tag in self._taken]

    def settle(self, tags: Sequence[int]) -> list[Held]:
        """Hold these no longer; return what was still held of them."""
        with self._lock:
            return [self._taken.pop(tag) for tag in tags if tag in self._taken]

    def release(self, tags: Sequence[int]) -> None:
        with self._lock:
            back = {tag: self._taken.pop(tag) for tag in tags if tag in self._taken}
            if back:
                self._waiting = dict(sorted((back | self._waiting).items()))

    def drain(self) -> list[Held]:
        """Hold no longer what nobody has taken; return it."""
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
            return waiting

    def clear(self) -> None:
        """Forget everything: the channel is gone, and RabbitMQ delivers all of it again."""
        with self._lock:
            self.filled = False
            self._waiting = {}
            self._taken = {}
