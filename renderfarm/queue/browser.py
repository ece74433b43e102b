"""Looking through a queue of RabbitMQ without emptying it. For the link's thread only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pika.adapters.asyncio_connection import AsyncioConnection

from renderfarm.queue.channels import Channel, Letter

#: How long what was looked at may take to be back; somebody else may have got it meanwhile.
_BACK_S = 1.0
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Got:
    """A message in our hands."""

    tag: int
    letter: Letter


class Browser:
    """Gets what is in a queue at this moment, each message once; what is not removed goes back at the end."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._unseen = 0
        self._kept = 0

    @staticmethod
    async def open(connection: AsyncioConnection, queue: str) -> Browser:
        browser = Browser(await Channel.open(connection), queue)
        browser._unseen = await browser._count()
        return browser

    async def get(self, limit: int) -> list[Got]:
        """Return the next messages; empty: all have been seen."""
        found: list[Got] = []
        while self._unseen and len(found) < limit and (got := await self._channel.get(self._queue)) is not None:
            method, properties, body = got
            found.append(Got(tag=method.delivery_tag, letter=Letter(body=body, properties=properties)))
            self._unseen -= 1
        self._kept += len(found)
        return found

    def remove(self, messages: Sequence[Got]) -> None:
        for message in messages:
            self._channel.raw.basic_ack(message.tag)
        self._kept -= len(messages)

    async def close(self) -> None:
        """Give back, and wait until others can see it again, so that one look after the other sees the same."""
        if not self._channel.raw.is_open:
            return
        if self._kept:
            self._channel.raw.basic_nack(0, multiple=True, requeue=True)
            deadline = time.monotonic() + _BACK_S
            while await self._count() < self._kept and time.monotonic() < deadline:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(_LOOK_EVERY_S)
        self._channel.close()

    async def _count(self) -> int:
        frame = await self._channel.ask(self._channel.raw.queue_declare, self._queue, passive=True)
        count: int = frame.method.message_count
        return count
