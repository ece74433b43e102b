"""What only RabbitMQ can do to a queue: lose connections, count deliveries, be killed, fall silent."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import psutil
import pytest

from renderfarm.errors import FarmUnavailable, InvalidSettings
from renderfarm.queue import RabbitQueue
from tests import servers
from tests.contract.queues import arrive, arrive_keys, eventually, is_empty, rabbit, rabbit_at
from tests.private_rabbitmq import PrivateRabbitMq

Connect = Callable[[], RabbitQueue]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    with rabbit(tmp_path) as connect:
        yield connect


@pytest.fixture
def broker() -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    """Somebody else's view of the same RabbitMQ."""
    connection = pika.BlockingConnection(pika.URLParameters(servers.amqp_url()))
    yield connection.channel()
    connection.close()


def cut_connections(port: int) -> None:
    """Cut every connection of this process to RabbitMQ, as a broken network does."""
    for found in psutil.Process().net_connections("tcp"):
        remote: Any = found.raddr  # an empty tuple for who listens
        if remote and remote.port == port:
            with socket.socket(fileno=os.dup(found.fd)) as theirs:
                theirs.shutdown(socket.SHUT_RDWR)


def port_of(url: str) -> int:
    return urlsplit(url).port or 5672


def test_the_queues_are_quorum_queues_of_persistent_messages(
    connect: Connect, broker: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    for declaration in queue.arrangement.declarations():
        other = declaration | {"arguments": declaration["arguments"] | {"x-queue-type": "classic"}}
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match=r"'x-queue-type' .* but current is 'quorum'"):
            broker.connection.channel().queue_declare(**other)
    _, properties, _ = broker.basic_get(queue.arrangement.messages)
    assert properties is not None
    assert (properties.delivery_mode, bool(properties.message_id)) == (2, True)


def test_what_reaches_no_queue_is_an_error_and_the_queue_is_made_anew(
    connect: Connect, broker: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    broker.queue_delete(queue.arrangement.messages)
    with pytest.raises(FarmUnavailable, match="has no queue"):
        queue.publish([("task", "b")])
    until_published(queue, "c")
    assert arrive_keys(queue, 1) == ["c"]


def test_who_consumed_from_a_deleted_queue_consumes_from_the_new_one(
    connect: Connect, broker: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    queue = connect()
    queue.publish([("task", "x"), ("task", "y")])
    # With two in its hands, it has changed to prefetching many, and nothing is on its way.
    queue.acknowledge([delivery.tag for delivery in arrive(queue, 2)])
    broker.queue_delete(queue.arrangement.messages)
    eventually(lambda: [queue] if exists(broker.connection, queue.arrangement.messages) else [])
    until_published(connect(), "a")
    assert arrive_keys(queue, 1) == ["a"]


def exists(connection: pika.BlockingConnection, name: str) -> bool:
    channel = connection.channel()
    try:
        channel.queue_declare(name, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    channel.close()
    return True


def until_published(queue: RabbitQueue, key: str, timeout_s: float = 20.0) -> None:
    """Publish as the relay does: again, for as long as the queue does not answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return queue.publish([("task", key)])
        except FarmUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_a_lost_connection_held_is_delivered_again(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a"), ("task", "b")])
    a, b = arrive(queue, 2)
    woken = threading.Event()
    queue.on_arrival(woken.set)
    cut_connections(port_of(servers.amqp_url()))
    # Nobody takes, and still it reconnects, consumes and wakes.
    assert woken.wait(10)
    # The old tags are nobody's.
    queue.acknowledge([a.tag])
    queue.release([b.tag])
    queue.bury([b.tag], "why")
    keys = []
    for _ in range(2):
        (delivery,) = arrive(queue, 1)
        queue.acknowledge([delivery.tag])
        keys.append(delivery.key)
    assert sorted(keys) == ["a", "b"]
    assert is_empty(queue)
    assert queue.dead(10) == []


def test_a_busy_consumer_keeps_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    with rabbit_at(f"{servers.amqp_url()}?heartbeat=1") as connect, caplog.at_level(logging.WARNING):
        queue = connect()
        queue.publish([("task", "a")])
        (delivery,) = arrive(queue, 1)
        busy_until = time.monotonic() + 4
        while time.monotonic() < busy_until:
            pass
        queue.acknowledge([delivery.tag])
        assert is_empty(queue)
        queue.close()
        assert is_empty(connect())
    assert caplog.text == ""


def test_what_is_no_message_is_put_aside(
    connect: Connect, broker: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    queue = connect()
    queue.check()
    bodies = [b"\xff nonsense", b"[]", b'{"topic": 1, "key": "x"}']
    for body in bodies:
        broker.basic_publish("", queue.arrangement.messages, body)
    assert is_empty(queue)
    dead = eventually(lambda: found if len(found := queue.dead(10)) == 3 else [])
    assert {letter.topic for letter in dead} == {"?"}
    assert all(letter.reason.startswith("no message of the farm's") for letter in dead)
    assert len({letter.id for letter in dead}) == 3
    # Replayed, it dies again of the same.
    assert queue.replay([dead[0].id]) == 1
    again = eventually(lambda: found if len(found := queue.dead(10)) == 3 else [])
    assert {letter.id for letter in again} == {letter.id for letter in dead}


def test_who_only_publishes_holds_nothing(connect: Connect) -> None:
    publisher = connect()
    publisher.on_arrival(lambda: pytest.fail("nothing is to arrive here"))
    publisher.publish([("task", "a")])
    publisher.dead(10)
    publisher.check()
    assert arrive_keys(connect(), 1) == ["a"]


def test_who_has_not_taken_for_long_holds_nothing() -> None:
    """A scheduler without workers takes nothing, and its restarts must not count against what waits."""
    with rabbit_at(servers.amqp_url(), idle_s=0.2) as connect:
        idle = connect()
        idle.publish([("task", key) for key in "abc"])
        (held,) = arrive(idle, 1)
        # Another gets what was waiting there, as it was published; what was taken stays taken.
        other = connect()
        assert sorted(arrive_keys(other, 2)) == ["b", "c"]
        idle.acknowledge([held.tag])
        other.close()
        # The next take consumes again.
        keys = []
        for _ in range(2):
            (delivery,) = arrive(idle, 1)
            idle.acknowledge([delivery.tag])
            keys.append(delivery.key)
        assert sorted(keys) == ["b", "c"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("amqp://guest:s3cret@{host}/", "it refuses the user's name or password"),
        ("amqp://guest:guest@{host}/nope", "it refuses the virtual host"),
        ("amqp://guest:s3cret@127.0.0.1:1/", "Connection refused"),
    ],
)
def test_a_wrong_url_says_what_is_wrong_with_it(url: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    host = servers.amqp_url().rpartition("@")[2].partition("/")[0]
    with closing(RabbitQueue(url.format(host=host))) as queue:
        for use in (queue.check, lambda: queue.publish([("task", "a")]), lambda: queue.take(1), lambda: queue.dead(1)):
            begun = time.monotonic()
            with pytest.raises(FarmUnavailable, match=f"^RabbitMQ at [^ ]+: {words}$"):
                use()
            assert time.monotonic() - begun < 5
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("url", ["", "http://u:s3cret@host/", "amqp://u:s3cret@host:port/", "amqp://u:s3cret@[x/"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidSettings, match="write amqp://") as caught:
        RabbitQueue(url)
    assert "s3cret" not in str(caught.value)


def test_who_says_nothing_is_not_waited_for_long() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        closing(RabbitQueue(f"amqp://127.0.0.1:{silent.getsockname()[1]}/")) as queue,
    ):
        begun = time.monotonic()
        with pytest.raises(FarmUnavailable, match="no answer in time"):
            queue.check()
        assert time.monotonic() - begun < 6


def test_closing_ends_what_others_wait_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        queue = RabbitQueue(f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        answer = pool.submit(queue.check)
        connection, _ = silent.accept()
        with connection:
            queue.close()
            with pytest.raises(FarmUnavailable, match="closed"):
                answer.result(5)


def test_a_process_ends_although_its_queue_is_open(connect: Connect) -> None:
    queue = connect()
    queue.publish([("task", "a")])
    script = f"""
from renderfarm.queue import RabbitQueue
queue = RabbitQueue({servers.amqp_url()!r}, {queue.arrangement.prefix!r})
queue.take(1)
print("taken")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "taken\n", "")


def test_who_is_closed_says_so() -> None:
    with closing(RabbitQueue(servers.amqp_url())) as queue:
        queue.close()
        with pytest.raises(FarmUnavailable, match="closed"):
            queue.publish([("task", "a")])


def test_confirmed_messages_survive_the_death_of_rabbitmq() -> None:
    """Messages: confirmed > killed -9 > started again > taken. Dead letters, too. Nobody does anything to the farm."""
    with PrivateRabbitMq() as server, closing(RabbitQueue(server.url)) as queue:
        queue.check()
        # Where the node keeps the names of its queues is written every half second.
        (names,) = server.folder.glob("data/*/quorum/*/names.dets")
        eventually(lambda: [names] if queue.arrangement.messages.encode() in names.read_bytes() else [])
        queue.publish([("task", f"{number:03}") for number in range(300)])
        (first,) = arrive(queue, 1)
        queue.bury([first.tag], "why")
        server.kill()
        for use in (lambda: queue.publish([("task", "lost")]), lambda: queue.take(1), queue.check):
            begun = time.monotonic()
            with pytest.raises(FarmUnavailable):
                use()
            assert time.monotonic() - begun < 5.5
        server.start()
        until_published(queue, "later")
        keys: set[str] = set()
        while "later" not in keys:
            for delivery in arrive(queue, 1):
                keys.add(delivery.key)
                queue.acknowledge([delivery.tag])
        # What was put aside may come again: its acknowledgement may have died with the node.
        assert keys - {"000"} == {f"{number:03}" for number in range(1, 300)} | {"later"}
        assert [letter.key for letter in queue.dead(10)] == ["000"]
