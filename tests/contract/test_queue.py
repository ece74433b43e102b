"""What every queue promises: at least once, in about the order of publishing, gone once acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from renderfarm.ports import DELIVERIES_MAX
from tests.contract.queues import Connect, arrive, arrive_keys, eventually, is_empty, mariadb_table, rabbit, table

QUEUES: dict[str, Callable[[Path], AbstractContextManager[Connect]]] = {
    "table": table,
    "mariadb_table": mariadb_table,
    "rabbit": rabbit,
}


@pytest.fixture(params=QUEUES)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    with QUEUES[request.param](tmp_path) as connect:
        yield connect


def test_messages_come_in_order_and_go_when_acknowledged(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", str(number)) for number in range(5)])
    first = arrive(queue, 2)
    rest = arrive(queue, 3)
    assert [(delivery.topic, delivery.key) for delivery in first + rest] == [("task", key) for key in "01234"]
    queue.acknowledge([delivery.tag for delivery in first + rest])
    queue.close()
    assert is_empty(connect())


def test_a_batch_is_whole_and_in_order(connect: Connect) -> None:
    queue = connect()
    keys = [f"{number:04}" for number in range(390)]
    queue.publish([("task", key) for key in keys])
    deliveries = arrive(queue, len(keys))
    assert [delivery.key for delivery in deliveries] == keys
    # Acknowledged in any order, all but one are gone.
    queue.acknowledge([delivery.tag for delivery in reversed(deliveries) if delivery.key != "0200"])
    queue.close()
    again = connect()
    (left,) = arrive(again, 1)
    assert left.key == "0200"
    again.acknowledge([left.tag])
    assert is_empty(again)


def test_nothing_is_taken_twice_by_the_same_consumer(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    assert arrive_keys(queue, 1) == ["a"]
    assert is_empty(queue)


def test_what_was_not_acknowledged_comes_back_after_a_crash(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a"), ("task", "b")])
    done, _ = arrive(queue, 2)
    queue.acknowledge([done.tag])
    queue.close()
    assert arrive_keys(connect(), 1) == ["b"]


def test_what_was_released_is_taken_again_in_its_place(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", key) for key in "abc"])
    a, b, c = arrive(queue, 3)
    queue.acknowledge([b.tag])
    queue.release([a.tag, c.tag])
    queue.publish([("task", "d")])
    assert arrive_keys(queue, 3) == ["a", "c", "d"]


def test_releasing_never_counts_against_a_message(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    for _ in range(3 * DELIVERIES_MAX):
        (delivery,) = arrive(queue, 1)
        queue.release([delivery.tag])
    queue.close()
    assert arrive_keys(connect(), 1) == ["a"]


def test_tags_of_nobody_are_harmless(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    (delivery,) = arrive(queue, 1)
    for use in (queue.acknowledge, queue.release, lambda tags: queue.bury(tags, "why")):
        use([10**6])
        use([])
    queue.publish([])
    queue.acknowledge([delivery.tag])
    queue.acknowledge([delivery.tag])
    queue.release([delivery.tag])
    assert is_empty(queue)
    assert queue.dead(10) == []


def test_arrival_wakes_who_waits(connect: Connect) -> None:
    queue = connect()
    woken = threading.Event()
    queue.on_arrival(woken.set)
    assert queue.take(10) == []
    queue.publish([("task", "a")])
    assert woken.wait(5)
    assert arrive_keys(queue, 1) == ["a"]


def test_dead_letters_keep_reason_and_order_and_can_be_replayed(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a"), ("asset", "b"), ("task", "c")])
    a, b, c = arrive(queue, 3)
    queue.bury([a.tag], "no such topic: táßk")
    queue.bury([b.tag, c.tag], "nobody wants it")
    dead = queue.dead(10)
    assert [(letter.topic, letter.key) for letter in dead] == [("task", "a"), ("asset", "b"), ("task", "c")]
    assert [letter.reason for letter in dead] == ["no such topic: táßk", "nobody wants it", "nobody wants it"]
    assert dead[0].died_at > 1.7e9
    # Looking changes nothing, for nobody.
    assert queue.dead(10) == dead
    assert queue.dead(2) == dead[:2]
    assert connect().dead(10) == dead
    assert queue.replay(["nonsense", "9" * 30]) == 0
    assert queue.replay([dead[1].id]) == 1
    assert arrive_keys(queue, 1) == ["b"]
    assert queue.dead(10) == [dead[0], dead[2]]
    assert queue.replay(None) == 2
    assert queue.replay(None) == 0
    assert arrive_keys(queue, 2) == ["a", "c"]
    assert queue.dead(10) == []


def test_what_was_buried_does_not_come_back_after_a_crash(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    (delivery,) = arrive(queue, 1)
    queue.bury([delivery.tag], "why")
    queue.close()
    assert is_empty(connect())
    assert [letter.key for letter in connect().dead(10)] == ["a"]


def test_who_kills_its_consumers_dies_alone(connect: Connect) -> None:
    publisher = connect()
    publisher.publish([("task", key) for key in ("good 1", "deadly", "good 2", "good 3")])
    # All are in the hands of the first that dies, as nobody can know which it is.
    consumer = connect()
    assert len(arrive(consumer, 4)) == 4
    consumer.close()
    for _ in range(DELIVERIES_MAX - 1):
        consumer = connect()
        while (delivery := arrive(consumer, 1)[0]).key != "deadly":
            consumer.acknowledge([delivery.tag])
        consumer.close()
    survivor = connect()
    survivor.release([delivery.tag for delivery in survivor.take(1)])
    (dead,) = eventually(lambda: survivor.dead(10))
    assert (dead.key, dead.reason) == ("deadly", f"its consumer died with it {DELIVERIES_MAX} times")
    assert survivor.replay([dead.id]) == 1
    assert survivor.dead(10) == []
    # Its count begins anew.
    keys: list[str] = []
    while "deadly" not in keys:
        (delivery,) = arrive(survivor, 1)
        survivor.acknowledge([delivery.tag])
        keys.append(delivery.key)
    assert is_empty(survivor)
