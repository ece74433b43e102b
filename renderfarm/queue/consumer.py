"""Consuming from RabbitMQ, whose limit of deliveries counts whatever a dead process held, guilty or not.

So that the innocent live, messages are prefetched one by one until the first comes that nobody has died with, and
whoever has not taken for long holds nothing. For the link's thread only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from pika import BasicProperties

from renderfarm.queue import letters
from renderfarm.queue.channels import Channel, Letter
from renderfarm.queue.inbox import Held, Inbox
from renderfarm.queue.link import TROUBLE, reason_of

log = logging.getLogger(__name__)

#: Enough for the next take while one is being worked on.
PREFETCH = 400
#: Who died with a message before may have died of it: it is alone in our hands then.
_PREFETCH_CAREFULLY = 1
_LOOKS_WHILE_IDLE = 4

Bury = Callable[[Sequence[Letter], str], Awaitable[None]]
Publish = Callable[[Sequence[Letter]], Awaitable[None]]


class Consumer:
    """Fills an inbox from one queue, over one channel."""

    def __init__(self, channel: Channel, queue: str, inbox: Inbox, *, publish: Publish, bury: Bury) -> None:
        self._channel = channel
        self._queue = queue
        self._inbox = inbox
        self._publish = publish
        self._bury = bury
        self._changing = asyncio.Lock()
        self._consumer_tag: str | None = None
        self._careful = True
        self._unacknowledged: dict[int, None] = {}
        """The channel's tags, in order."""
        self._errands: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Let messages arrive, carefully at first."""
        async with self._changing:
            if self._consumer_tag is None:
                self._careful = True
                await self._consume(_PREFETCH_CAREFULLY)
                self._inbox.filled = True

    async def stop_when_idle(self, idle_s: float) -> None:
        """Watch for ever: whoever has not taken for that long gets nothing more until the next take.

        What was waiting goes back as a copy: handing it back would count against it, and after half an hour
        RabbitMQ would take it back itself.
        """
        while True:
            await asyncio.sleep(idle_s / _LOOKS_WHILE_IDLE)
            if self._inbox.filled and time.monotonic() - self._inbox.asked_at > idle_s:
                async with self._changing:
                    self._inbox.filled = self._inbox.wanted = False
                    await self._cancel()
                    waiting = self._inbox.drain()
                    await self._publish([letters.fresh(held.letter) for held in waiting])
                    self.acknowledge([held.channel_tag for held in waiting])

    def acknowledge(self, tags: Sequence[int]) -> None:
        """Tell RabbitMQ to forget these; those at the front of what we hold in one word."""
        if not self._channel.raw.is_open:
            return
        done = set(tags)
        front = None
        for tag in self._unacknowledged:
            if tag not in done:
                break
            front = tag
        if front is not None:
            self._channel.raw.basic_ack(front, multiple=True)
        for tag in tags:
            if front is None or tag > front:
                self._channel.raw.basic_ack(tag)
            self._unacknowledged.pop(tag, None)

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something without waiting for it; it ends with the connection."""
        task = asyncio.get_running_loop().create_task(_told(errand))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def end(self) -> None:
        """Run no more errands, and forget what came by this channel: RabbitMQ delivers it again."""
        self._inbox.clear()
        for errand in self._errands:
            errand.cancel()

    async def _consume(self, prefetch: int) -> None:
        raw = self._channel.raw
        await self._channel.ask(raw.basic_qos, prefetch_count=prefetch)
        frame = await self._channel.ask(raw.basic_consume, self._queue, self._on_message)
        self._consumer_tag = frame.method.consumer_tag

    async def _cancel(self) -> None:
        if self._consumer_tag is not None:
            await self._channel.ask(self._channel.raw.basic_cancel, self._consumer_tag)
            self._consumer_tag = None

    async def _prefetch_many(self) -> None:
        async with self._changing:
            if self._consumer_tag is not None:
                await self._cancel()
                await self._consume(PREFETCH)

    def _on_message(self, _raw: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
        letter = Letter(body=body, properties=properties)
        self._unacknowledged[method.delivery_tag] = None
        if self._careful and not (properties.headers or {}).get("x-delivery-count", 0):
            self._careful = False
            self.run(self._prefetch_many())
        try:
            topic, key = letters.read(body)
        except ValueError as error:
            self.run(self._put_aside(letter, method.delivery_tag, f"no message of the farm's: {error}"))
        else:
            self._inbox.arrived(topic, key, letter, self, method.delivery_tag)

    async def _put_aside(self, letter: Letter, tag: int, reason: str) -> None:
        await self._bury([letter], reason)
        self.acknowledge([tag])

    async def bury(self, held: Sequence[Held], reason: str) -> None:
        """Put messages aside, then acknowledge them."""
        await self._bury([each.letter for each in held], reason)
        self.acknowledge([each.channel_tag for each in held])


async def _told(errand: Awaitable[None]) -> None:
    """Whatever RabbitMQ does to an errand, it delivers the message again; say so, and nothing is lost."""
    try:
        await errand
    except TROUBLE as error:
        log.warning("RabbitMQ: %s", reason_of(error))
