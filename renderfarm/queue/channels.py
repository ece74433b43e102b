"""Channels of RabbitMQ whose answers can be awaited. For the link's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pika import BasicProperties
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel as PikaChannel
from pika.exceptions import AMQPError
from pika.spec import Basic


class Refused(AMQPError):
    """RabbitMQ did not take a message."""

    def __str__(self) -> str:
        return str(self.args[0])


def settle(future: asyncio.Future[Any], value: Any) -> None:
    """Give an answer to who waits, if anybody still does."""
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Give an error to who waits, if anybody still does."""
    if not future.done():
        future.set_exception(error)


class Channel:
    """A channel whose questions fail when it is closed, rather than waiting for ever."""

    def __init__(self, raw: PikaChannel) -> None:
        self.raw = raw
        self._waiting: set[asyncio.Future[Any]] = set()
        self._getting: asyncio.Future[Any] | None = None
        raw.add_on_close_callback(self._closed)
        raw.add_callback(self._on_empty, [Basic.GetEmpty], one_shot=False)

    @staticmethod
    async def open(connection: AsyncioConnection) -> Channel:
        opened: asyncio.Future[PikaChannel] = asyncio.get_running_loop().create_future()
        connection.add_on_close_callback(lambda _, error: fail(opened, error))
        connection.channel(on_open_callback=lambda raw: settle(opened, raw))
        return Channel(await opened)

    async def ask(self, question: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method of pika's channel that takes a ``callback``; return what that is given."""
        answer = self.expect()
        question(*arguments, **named, callback=lambda *given: settle(answer, given[-1]))
        return await answer

    async def get(self, queue: str) -> tuple[Any, BasicProperties, bytes] | None:
        """Return method, properties and body of a queue's next message; None: there is none. One at a time."""
        self._getting = answer = self.expect()
        self.raw.basic_get(queue, lambda _, *got: settle(answer, got))
        got: tuple[Any, BasicProperties, bytes] | None = await answer
        return got

    def expect(self) -> asyncio.Future[Any]:
        """Return a future that fails when the channel is closed."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        return answer

    def close(self) -> None:
        if self.raw.is_open:
            self.raw.close()

    def _on_empty(self, _frame: Any) -> None:
        if self._getting is not None:
            settle(self._getting, None)

    def _closed(self, _raw: PikaChannel, reason: Exception) -> None:
        for answer in list(self._waiting):
            fail(answer, reason)


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message on its way: its bytes and what is written on the envelope."""

    body: bytes
    properties: BasicProperties


@dataclass(eq=False)
class _Batch:
    """Messages whose confirms are awaited together."""

    confirmed: asyncio.Future[Any]
    open_tags: set[int] = field(default_factory=set)


class Publisher:
    """Publishes to queues by their names; a message is safe when RabbitMQ has confirmed it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unconfirmed: dict[int, _Batch] = {}
        """In the order of publishing, which is that of the tags."""
        self._published = 0
        self._returned: set[str | None] = set()
        self.blocked: str | None = None
        """Why RabbitMQ takes no messages now."""

    @staticmethod
    async def open(connection: AsyncioConnection) -> Publisher:
        channel = await Channel.open(connection)
        publisher = Publisher(channel)
        channel.raw.add_on_return_callback(publisher._on_return)
        connection.add_on_connection_blocked_callback(publisher._on_blocked)
        connection.add_on_connection_unblocked_callback(publisher._on_unblocked)
        await channel.ask(channel.raw.confirm_delivery, publisher._on_confirm)
        return publisher

    async def publish(self, queue: str, letters: Sequence[Letter]) -> None:
        """Return once all are stored; many are on their way at a time.

        Raises:
            Refused: RabbitMQ does not take them, or has no such queue any more.
        """
        if self.blocked is not None:
            raise Refused(f"it takes no messages now: {self.blocked}")
        batch = _Batch(self._channel.expect())
        for letter in letters:
            self._channel.raw.basic_publish("", queue, letter.body, letter.properties, mandatory=True)
            self._published += 1
            batch.open_tags.add(self._published)
            self._unconfirmed[self._published] = batch
        if letters:
            await batch.confirmed
        if not self._returned.isdisjoint(letter.properties.message_id for letter in letters):
            self._returned.clear()
            raise Refused(f"it has no queue {queue}")

    def _on_confirm(self, frame: Any) -> None:
        tag, stored = frame.method.delivery_tag, isinstance(frame.method, Basic.Ack)
        for confirmed in self._tags_up_to(tag) if frame.method.multiple else [tag]:
            batch = self._unconfirmed.pop(confirmed, None)
            if batch is not None:
                batch.open_tags.discard(confirmed)
                if not stored:
                    fail(batch.confirmed, Refused("it could not store a message"))
                elif not batch.open_tags:
                    settle(batch.confirmed, None)

    def _tags_up_to(self, tag: int) -> list[int]:
        tags = []
        for unconfirmed in self._unconfirmed:
            if unconfirmed > tag:
                break
            tags.append(unconfirmed)
        return tags

    def _on_return(self, _channel: Any, _method: Any, properties: BasicProperties, _body: bytes) -> None:
        self._returned.add(properties.message_id)

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = " ".join(str(frame.method.reason).split()) or "it is short of something"
        for batch in set(self._unconfirmed.values()):
            fail(batch.confirmed, Refused(f"it takes no messages now: {self.blocked}"))

    def _on_unblocked(self, *_: Any) -> None:
        self.blocked = None
