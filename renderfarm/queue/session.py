"""What the farm has open on one connection to RabbitMQ. For the link's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from pika.adapters.asyncio_connection import AsyncioConnection

from renderfarm.ports import DeadLetter
from renderfarm.queue import letters
from renderfarm.queue.browser import Browser
from renderfarm.queue.channels import Channel, Letter, Publisher, Refused
from renderfarm.queue.consumer import Consumer
from renderfarm.queue.inbox import Inbox
from renderfarm.queue.letters import Arrangement

#: Dead letters that are put back with one wait for the confirms.
_REPLAYED_AT_ONCE = 200
_LOOKED_AT = 1000


class Session:
    """The queues, declared; a publisher, and a consumer that has not begun."""

    def __init__(self, connection: AsyncioConnection, arrangement: Arrangement, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._arrangement = arrangement
        self._clock = clock
        self._browsing = asyncio.Lock()
        self._control: Channel
        self._publisher: Publisher
        self.consumer: Consumer

    @staticmethod
    async def open(
        connection: AsyncioConnection,
        arrangement: Arrangement,
        inbox: Inbox,
        *,
        clock: Callable[[], float],
        idle_s: float,
    ) -> Session:
        self = Session(connection, arrangement, clock)
        self._control = await self._open_channel()
        for declaration in arrangement.declarations():
            await self._control.ask(self._control.raw.queue_declare, **declaration)
        self._publisher = await Publisher.open(connection)
        consuming = await self._open_channel()
        # Somebody has deleted the queue: the next connection declares it anew.
        consuming.raw.add_on_cancel_callback(lambda _: self._reconnect())
        self.consumer = Consumer(consuming, arrangement.messages, inbox, publish=self.publish, bury=self.bury)
        self.consumer.run(self.consumer.stop_when_idle(idle_s))
        if inbox.wanted:
            await self.consumer.start()
        return self

    def end(self) -> None:
        self.consumer.end()

    async def publish(self, messages: Sequence[Letter]) -> None:
        await self._publish(self._arrangement.messages, messages)

    async def bury(self, messages: Sequence[Letter], reason: str) -> None:
        await self._publish(self._arrangement.dead, letters.buried(messages, reason, self._clock()))

    async def ping(self) -> None:
        """Ask for something that only a queue that works can answer."""
        await self._control.ask(self._control.raw.queue_declare, self._arrangement.messages, passive=True)

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Look at more than are wanted: RabbitMQ puts what was looked at behind the others."""
        async with self._browser() as browser:
            found = await browser.get(max(limit, _LOOKED_AT))
        dead = [letters.dead_letter(got.letter) for got in found]
        return sorted(dead, key=lambda letter: letter.died_at)[:limit]

    async def replay(self, ids: Collection[str] | None) -> int:
        """Put back those that are dead now: who dies again meanwhile stays."""
        replayed = 0
        async with self._browser() as browser:
            while found := await browser.get(_REPLAYED_AT_ONCE):
                chosen = [got for got in found if ids is None or letters.id_of(got.letter) in ids]
                await self.publish([letters.fresh(got.letter) for got in chosen])
                browser.remove(chosen)
                replayed += len(chosen)
        return replayed

    async def _publish(self, queue: str, messages: Sequence[Letter]) -> None:
        try:
            await self._publisher.publish(queue, messages)
        except Refused:
            if self._publisher.blocked is None:
                self._reconnect()
            raise

    @asynccontextmanager
    async def _browser(self) -> AsyncIterator[Browser]:
        async with self._browsing:
            browser = await Browser.open(self._connection, self._arrangement.dead)
            try:
                yield browser
            finally:
                await browser.close()

    async def _open_channel(self) -> Channel:
        """Open a channel without which the session is of no use."""
        channel = await Channel.open(self._connection)
        channel.raw.add_on_close_callback(lambda *_: self._reconnect())
        return channel

    def _reconnect(self) -> None:
        if self._connection.is_open:
            self._connection.close()
