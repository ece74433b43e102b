"""What every queue promises: at least once, in about the order of publishing, gone once acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from renderfarm.db import SqlDatabase
from renderfarm.db.engine import sqlite_engine
from renderfarm.ports import Queue
from renderfarm.queue import TableQueue

Connect = Callable[[], Queue]
"""A new consumer of the same queue, as a process that starts anew has it."""


def _table(folder: Path) -> Connect:
    database = SqlDatabase(sqlite_engine(folder / "farm.db"))
    database.migrate()
    return lambda: TableQueue(database.engine)


QUEUES: dict[str, Callable[[Path], Connect]] = {"table": _table}


@pytest.fixture(params=QUEUES)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    return QUEUES[request.param](tmp_path)


def test_messages_come_in_order_and_go_when_acknowledged(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", str(number)) for number in range(5)])
    first = queue.take(2)
    rest = queue.take(10)
    assert [delivery.key for delivery in first + rest] == ["0", "1", "2", "3", "4"]
    queue.acknowledge([delivery.tag for delivery in first + rest])
    queue.close()
    assert connect().take(10) == []


def test_nothing_is_taken_twice_by_the_same_consumer(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    assert len(queue.take(10)) == 1
    assert queue.take(10) == []


def test_what_was_not_acknowledged_comes_back_after_a_crash(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a"), ("task", "b")])
    done, _ = queue.take(2)
    queue.acknowledge([done.tag])
    queue.close()
    assert [delivery.key for delivery in connect().take(10)] == ["b"]


def test_nothing_to_publish_or_acknowledge_is_no_error(connect: Connect) -> None:
    queue = connect()
    queue.publish([])
    queue.acknowledge([])
    assert queue.take(10) == []
