"""The queue as a table in the database, for a farm whose only consumer is its one scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, delete, insert, select

from renderfarm.db.engine import farm_errors
from renderfarm.db.tables import queue_messages
from renderfarm.ports import Delivery


class TableQueue:
    """Implements ``ports.Queue``. What is taken is remembered in this process only: it comes back if we die."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taken: set[int] = set()

    def publish(self, messages: Sequence[tuple[str, str]]) -> None:
        if messages:
            with farm_errors(), self._engine.begin() as connection:
                connection.execute(insert(queue_messages), [{"topic": topic, "key": key} for topic, key in messages])

    def take(self, limit: int) -> list[Delivery]:
        query = select(queue_messages).order_by(queue_messages.c.id).limit(limit + len(self._taken))
        with farm_errors(), self._engine.connect().execution_options(writes=False) as connection:
            rows = connection.execute(query).mappings().all()
        deliveries = [
            Delivery(tag=row["id"], topic=row["topic"], key=row["key"]) for row in rows if row["id"] not in self._taken
        ][:limit]
        self._taken.update(delivery.tag for delivery in deliveries)
        return deliveries

    def acknowledge(self, tags: Sequence[int]) -> None:
        if tags:
            with farm_errors(), self._engine.begin() as connection:
                connection.execute(delete(queue_messages).where(queue_messages.c.id.in_(tags)))
            self._taken.difference_update(tags)

    def release(self, tags: Sequence[int]) -> None:
        self._taken.difference_update(tags)

    def close(self) -> None:
        self._taken.clear()
