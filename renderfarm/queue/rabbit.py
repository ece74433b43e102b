"""The queue in RabbitMQ: a durable quorum queue with confirms, and a second one for dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from pika.adapters.asyncio_connection import AsyncioConnection

from renderfarm.ports import DeadLetter, Delivery
from renderfarm.queue import letters
from renderfarm.queue.inbox import Inbox
from renderfarm.queue.link import Link, parameters_of
from renderfarm.queue.session import Session

#: Messages in one wait for confirms: what does not get through in time is published again.
_PUBLISHED_AT_ONCE = 500
_IDLE_S = 300.0
#: Every dead letter may have to be looked at.
_REPLAY_S = 60.0


class RabbitQueue:
    """Implements ``ports.Queue``.

    Only who takes consumes. What was taken by a connection that has been lost may be acknowledged without harm;
    RabbitMQ delivers it again.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "renderfarm",
        *,
        idle_s: float = _IDLE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            url: ``amqp://USER:PASSWORD@HOST:5672/VHOST``, as pika takes it; ``?heartbeat=`` in seconds, and others.
            prefix: begins the names of the queues.
            idle_s: who has not taken for so long holds nothing any more.
            clock: tells when a message died, in seconds since the epoch.

        Raises:
            InvalidSettings: the URL makes no sense.
        """
        self.arrangement = letters.Arrangement(prefix=prefix)
        self._clock = clock
        self._idle_s = idle_s
        self._inbox = Inbox()
        self._link = Link(parameters_of(url), self._open_session)

    def publish(self, messages: Sequence[tuple[str, str]]) -> None:
        batch = [letters.new_letter(topic, key) for topic, key in messages]
        for start in range(0, len(batch), _PUBLISHED_AT_ONCE):
            self._link.call(partial(Session.publish, messages=batch[start : start + _PUBLISHED_AT_ONCE]))

    def take(self, limit: int) -> list[Delivery]:
        self._inbox.asked_at = time.monotonic()
        if not self._inbox.filled:
            self._inbox.wanted = True
            self._link.call(lambda session: session.consumer.start())
        return self._inbox.take(limit)

    def acknowledge(self, tags: Sequence[int]) -> None:
        held = self._inbox.settle(tags)
        if held:
            self._link.post(lambda: held[0].consumer.acknowledge([each.channel_tag for each in held]))

    def release(self, tags: Sequence[int]) -> None:
        self._inbox.release(tags)

    def bury(self, tags: Sequence[int], reason: str) -> None:
        held = self._inbox.taken(tags)
        if held:
            self._link.call(lambda _: held[0].consumer.bury(held, reason))
            self._inbox.settle(tags)

    def on_arrival(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` on the connection's thread, from the first take on: who takes nothing gets nothing."""
        self._inbox.on_arrival(wake)

    def dead(self, limit: int) -> list[DeadLetter]:
        return self._link.call(lambda session: session.dead(limit))

    def replay(self, ids: Collection[str] | None) -> int:
        return self._link.call(lambda session: session.replay(ids), _REPLAY_S)

    def check(self) -> None:
        self._link.call(lambda session: session.ping())

    def close(self) -> None:
        self._link.close()

    async def _open_session(self, connection: AsyncioConnection) -> Session:
        return await Session.open(connection, self.arrangement, self._inbox, clock=self._clock, idle_s=self._idle_s)
