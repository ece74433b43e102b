"""Queues of every kind for one test each, and waiting for what arrives."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

from renderfarm.db import SqlDatabase
from renderfarm.db.engine import mysql_engine, sqlite_engine
from renderfarm.ports import Delivery, Queue
from renderfarm.queue import RabbitQueue, TableQueue
from tests import servers
from tests.private_rabbitmq import delete_queues

T = TypeVar("T")
Connect = Callable[[], Queue]
"""A new consumer of the same queue, as a process that starts anew has it."""

_TIMEOUT_S = 10.0


@contextmanager
def table(folder: Path) -> Iterator[Connect]:
    with closing(SqlDatabase(sqlite_engine(folder / "farm.db"))) as database:
        database.migrate()
        yield lambda: TableQueue(database.engine)


@contextmanager
def mariadb_table(_folder: Path) -> Iterator[Connect]:
    with servers.migrated_mysql_database() as url, closing(SqlDatabase(mysql_engine(url))) as database:
        yield lambda: TableQueue(database.engine)


@contextmanager
def rabbit(_folder: Path) -> Iterator[Callable[[], RabbitQueue]]:
    with rabbit_at(servers.amqp_url()) as connect:
        yield connect


@contextmanager
def rabbit_at(url: str, *, idle_s: float = 300.0) -> Iterator[Callable[[], RabbitQueue]]:
    """Yield what opens queues that nobody else uses; close and delete them all."""
    prefix = f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    names: set[str] = set()
    with ExitStack() as opened:
        opened.callback(lambda: delete_queues(url, *names))

        def connect() -> RabbitQueue:
            queue = RabbitQueue(url, prefix, idle_s=idle_s)
            names.update((queue.arrangement.messages, queue.arrangement.dead))
            opened.callback(queue.close)
            return queue

        yield connect


def arrive(queue: Queue, count: int) -> list[Delivery]:
    """Take until so many have come."""
    something = threading.Event()
    queue.on_arrival(something.set)
    deadline = time.monotonic() + _TIMEOUT_S
    taken = queue.take(count)
    while len(taken) < count:
        assert time.monotonic() < deadline, f"only {len(taken)} of {count} arrived"
        # Only the first look may have been before the wake was set up.
        something.wait(0.05)
        something.clear()
        taken += queue.take(count - len(taken))
    return taken


def eventually(look: Callable[[], list[T]]) -> list[T]:
    """Look until there is something to see."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not (seen := look()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    return seen


def arrive_keys(queue: Queue, count: int) -> list[str]:
    return [delivery.key for delivery in arrive(queue, count)]


def is_empty(queue: Queue) -> bool:
    """Tell whether a message that is published now is the next to come."""
    queue.publish([("task", "last")])
    (last,) = arrive(queue, 1)
    queue.acknowledge([last.tag])
    return last.key == "last"
