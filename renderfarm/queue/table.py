"""The queue as a table in the database, for a farm whose only consumer is its one scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from renderfarm.db.engine import farm_errors
from renderfarm.db.tables import queue_messages
from renderfarm.ports import DELIVERIES_MAX, DeadLetter, Delivery
from renderfarm.queue.letters import KILLED_ITS_CONSUMERS

_message = queue_messages.c
#: The largest id there can be; people may ask for any.
_ID_DIGITS_MAX = 18


class TableQueue:
    """Implements ``ports.Queue``. What is taken is remembered in this process only: it comes back if we die."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._taken: set[int] = set()
        self._counted: set[int] = set()
        """Messages whose delivery to this consumer is written down, taken at present or not."""
        self._wakes: list[Callable[[], None]] = []

    def publish(self, messages: Sequence[tuple[str, str]]) -> None:
        if messages:
            with farm_errors(), self._engine.begin() as connection:
                connection.execute(insert(queue_messages), [{"topic": topic, "key": key} for topic, key in messages])
            self._wake()

    def take(self, limit: int) -> list[Delivery]:
        rows = self._look(limit)
        new = [row.id for row in rows if row.id not in self._counted]
        if new:
            deadly = [row.id for row in rows if row.id in new and row.deliveries >= DELIVERIES_MAX]
            with farm_errors(), self._engine.begin() as connection:
                self._bury(connection, deadly, KILLED_ITS_CONSUMERS)
                counted = update(queue_messages).where(_message.id.in_(new), _message.died_at.is_(None))
                connection.execute(counted.values(deliveries=_message.deliveries + 1))
            self._counted.update(new)
            rows = [row for row in rows if row.id not in deadly]
        self._taken.update(row.id for row in rows)
        return [Delivery(tag=row.id, topic=row.topic, key=row.key) for row in rows]

    def acknowledge(self, tags: Sequence[int]) -> None:
        if tags:
            with farm_errors(), self._engine.begin() as connection:
                connection.execute(
                    delete(queue_messages).where(_message.id.in_(self._held(tags)), _message.died_at.is_(None))
                )
            self._forget(tags)

    def release(self, tags: Sequence[int]) -> None:
        self._taken.difference_update(tags)

    def bury(self, tags: Sequence[int], reason: str) -> None:
        if tags:
            with farm_errors(), self._engine.begin() as connection:
                self._bury(connection, self._held(tags), reason)
            self._forget(tags)

    def on_arrival(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when this process publishes; whoever does so elsewhere wakes the scheduler anyway."""
        self._wakes.append(wake)

    def dead(self, limit: int) -> list[DeadLetter]:
        query = select(queue_messages).where(_message.died_at.is_not(None))
        with farm_errors(), self._engine.connect().execution_options(writes=False) as connection:
            rows = connection.execute(query.order_by(_message.died_at, _message.id).limit(limit)).all()
        return [
            DeadLetter(id=str(row.id), topic=row.topic, key=row.key, reason=row.reason, died_at=row.died_at)
            for row in rows
        ]

    def replay(self, ids: Collection[str] | None) -> int:
        dead = select(_message.id, _message.topic, _message.key).where(_message.died_at.is_not(None))
        if ids is not None:
            dead = dead.where(_message.id.in_([int(id_) for id_ in ids if _is_number(id_)]))
        with farm_errors(), self._engine.begin() as connection:
            rows = connection.execute(dead.order_by(_message.died_at, _message.id)).all()
            if rows:
                connection.execute(delete(queue_messages).where(_message.id.in_([row.id for row in rows])))
                connection.execute(insert(queue_messages), [{"topic": row.topic, "key": row.key} for row in rows])
        if rows:
            self._wake()
        return len(rows)

    def check(self) -> None: ...

    def close(self) -> None:
        self._taken.clear()
        self._counted.clear()

    def _look(self, limit: int) -> list[Any]:
        """Return the first messages that nobody holds."""
        query = select(_message.id, _message.topic, _message.key, _message.deliveries).where(_message.died_at.is_(None))
        query = query.order_by(_message.id).limit(limit + len(self._taken))
        with farm_errors(), self._engine.connect().execution_options(writes=False) as connection:
            return [row for row in connection.execute(query) if row.id not in self._taken][:limit]

    def _bury(self, connection: Connection, ids: Sequence[int], reason: str) -> None:
        if ids:
            buried = update(queue_messages).where(_message.id.in_(ids), _message.died_at.is_(None))
            connection.execute(buried, {"reason": reason, "died_at": self._clock()})

    def _held(self, tags: Sequence[int]) -> list[int]:
        return [tag for tag in tags if tag in self._taken]

    def _forget(self, tags: Sequence[int]) -> None:
        self._taken.difference_update(tags)
        self._counted.difference_update(tags)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS_MAX
