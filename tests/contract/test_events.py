"""What following the farm promises: every committed change is told once, by the events or from the execution log."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from renderfarm.auth import LOCAL_OWNER
from renderfarm.cache import RedisEvents
from renderfarm.db import SqlDatabase
from renderfarm.domain.models import LogEntry
from renderfarm.domain.states import UnitState
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import Farm
from renderfarm.services import progress
from renderfarm.services.following import Follower
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, prepare_farm
from tests.contract.test_statuses import redis_link, status
from tests.private_servers import PrivateRedis
from tests.servers import migrated_mysql_database
from tests.unit.fakes import FakeCompute
from tests.unit.services.story import Clock, Story

LOOK_EVERY_S = 0.2


def entry(number: int, task_id: str | None = None) -> LogEntry:
    return LogEntry(
        id=0,
        at=time.time(),
        project_id="default",
        asset_id=None,
        task_id=task_id,
        unit_id=None,
        attempt=None,
        event="task.note",
        old=None,
        new=None,
        reason=f"{number}: 100 % of 'it', done\\nünd %s",
        actor="user:test",
        revision=number if task_id else None,
    )


@dataclass
class World:
    """A farm, and what it needs to be told of."""

    farm: Farm
    redis: PrivateRedis | None

    @property
    def database(self) -> SqlDatabase:
        assert isinstance(self.farm.database, SqlDatabase)
        return self.farm.database

    def write(self, *numbers: int) -> None:
        with self.farm.database.write() as tx:
            tx.log.add([entry(number) for number in numbers])

    def write_untold(self, *numbers: int) -> None:
        """As by a process that dies between its commit and telling of it."""
        on_commit, self.database.on_commit = self.database.on_commit, None
        self.write(*numbers)
        self.database.on_commit = on_commit

    def follower(self, late_s: float = 10.0) -> Follower:
        follower = Follower(self.farm, look_every_s=LOOK_EVERY_S, late_s=late_s)
        follower.start()
        return follower


def numbers(entries: list[LogEntry]) -> list[int]:
    return [int(entry.reason.partition(":")[0]) for entry in entries]


def told(follower: Follower, count: int, for_s: float = 5.0) -> list[LogEntry]:
    """Follow until so many changes are told, and a look longer, for what is told twice."""
    deadline = time.monotonic() + for_s
    entries: list[LogEntry] = []
    while len(entries) < count:
        assert time.monotonic() < deadline, numbers(entries)
        entries += follower.next(0.1)
    until = time.monotonic() + 2 * LOOK_EVERY_S
    while time.monotonic() < until:
        entries += follower.next(0.1)
    return entries


@pytest.fixture(params=["sqlite-log", "sqlite-redis", "mariadb-log", "mariadb-redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    database, _, events = request.param.partition("-")
    with ExitStack() as stack:
        redis = stack.enter_context(PrivateRedis()) if events == "redis" else None
        url = stack.enter_context(migrated_mysql_database()) if database == "mariadb" else None
        settings = Settings(
            data=tmp_path / "data", runtime=tmp_path, database_url=url, redis_url=None if redis is None else redis.url
        )
        farm = prepare_farm(settings, FakeCompute())
        stack.callback(close_farm, farm)
        yield World(farm, redis)


def logged(world: World, after: int = 0) -> list[LogEntry]:
    with world.farm.database.read() as tx:
        return tx.log.page(after=after)


# --- the port ------------------------------------------------------------------------------------------------


def test_committed_changes_are_told_in_order_with_the_ids_of_the_log(world: World) -> None:
    world.write(1)
    after = world.farm.events.end()
    world.write(2, 3, 4)
    world.write(*range(5, 1105))
    entries: list[LogEntry] = []
    while len(entries) < 1103:
        some, after = world.farm.events.read(after, 1000, 1.0)
        assert some
        entries += some
    assert numbers(entries) == list(range(2, 1105))
    with world.farm.database.read() as tx:
        assert entries == tx.log.page(after=entries[0].id - 1, limit=2000)
    world.farm.events.check()


@pytest.mark.parametrize("world", ["mariadb-redis"], indirect=True)
def test_ids_of_a_replicated_database(world: World) -> None:
    """Its servers share the ids out among themselves, so that they are not one apart."""

    def share(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION auto_increment_increment = 3, SESSION auto_increment_offset = 2")

    event.listen(world.database.engine, "connect", share)
    world.database.engine.dispose()
    after = world.farm.events.end()
    world.write(1, 2, 3, 4)
    entries, _ = world.farm.events.read(after, 10, 1.0)
    assert entries == logged(world)
    assert [b.id - a.id for a, b in itertools.pairwise(entries)] == [3, 3, 3]


def test_reading_goes_on_where_it_was(world: World) -> None:
    after = world.farm.events.end()
    world.write(1, 2, 3)
    first, behind_two = world.farm.events.read(after, 2, 1.0)
    rest, end = world.farm.events.read(behind_two, 2, 1.0)
    assert (numbers(first), numbers(rest)) == ([1, 2], [3])
    started = time.monotonic()
    assert world.farm.events.read(end, 2, 0.3) == ([], end)
    assert 0.2 < time.monotonic() - started < 1.0


def test_what_is_rolled_back_is_not_told(world: World) -> None:
    after = world.farm.events.end()

    def fail() -> None:
        with world.farm.database.write() as tx:
            tx.log.add([entry(1)])
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    world.write(2)
    assert numbers(world.farm.events.read(after, 10, 1.0)[0]) == [2]


def test_a_commit_outdates_statuses_before_it_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = world.farm.statuses
    statuses.keep([status(3)], statuses.now())
    seen: list[object] = []
    monkeypatch.setattr(world.farm.events, "publish", lambda entries: seen.append((statuses.get("t1"), len(entries))))
    with world.farm.database.write() as tx:
        tx.log.add([entry(4, "t1"), entry(5)])
    assert seen == [(None, 2)]


def test_telling_that_fails_does_not_fail_what_is_committed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_changes: object) -> None:
        raise LookupError("a bug")

    world.database.on_commit = fail
    world.write(1)
    assert numbers(logged(world)) == [1]
    assert "could not be told" in caplog.text


# --- Redis ---------------------------------------------------------------------------------------------------


def test_the_stream_has_a_bounded_length() -> None:
    with redis_link() as link:
        events = RedisEvents(link, length_max=100)
        events.publish([replace(entry(number), id=number) for number in range(1, 1001)])
        assert 100 <= link.client.xlen(link.key("events")) < 300
        newest, _ = events.read("0-0", 1000, 0.1)
        assert newest[-1].id == 1000


def test_nonsense_in_the_stream_is_passed_over() -> None:
    with redis_link() as link:
        events = RedisEvents(link)
        after = events.end()
        link.client.xadd(link.key("events"), {"entry": '{"id": "one"}'})
        link.client.xadd(link.key("events"), {"other": "x"})
        events.publish([replace(entry(1), id=1)])
        assert numbers(events.read(after, 10, 0.1)[0]) == [1]


def test_without_a_server_nothing_is_told_and_nobody_held_up() -> None:
    with PrivateRedis() as server, redis_link(server.url) as link:
        events = RedisEvents(link)
        server.kill()
        started = time.monotonic()
        for _ in range(100):
            events.publish([entry(1)])
        for call in (events.end, events.check, lambda: events.read("0-0", 1, 5.0)):
            with pytest.raises(FarmUnavailable, match="Redis does not answer"):
                call()
        assert time.monotonic() - started < 1.0
        server.start()


# --- following -----------------------------------------------------------------------------------------------


def test_a_follower_tells_what_happens_from_now_on_once(world: World) -> None:
    world.write(1, 2)
    follower = world.follower()
    world.write(3)
    world.write(4, 5)
    assert numbers(told(follower, 3)) == [3, 4, 5]


def test_what_the_events_lost_is_found_in_the_log(world: World) -> None:
    follower = world.follower()
    world.write(1)
    world.write_untold(2, 3)
    world.write(4)
    world.write_untold(*range(5, 2505))
    assert sorted(numbers(told(follower, 2504))) == list(range(1, 2505))


def test_many_units_at_once_are_told(world: World) -> None:
    """The database makes these entries itself, and nobody publishes them."""
    story = Story(world.farm, _RealClock())
    task = story.admitted(frames="1-50")
    follower = world.follower()
    with world.farm.database.write() as tx:
        tx.log.add_for_units(entry(7, task.id), task.id, [UnitState.READY], None)
    entries = told(follower, 50)
    assert {entry.unit_id for entry in entries} == {unit.id for unit in story.units(task.id)}
    assert len(entries) == 50


class _RealClock(Clock):
    def __call__(self) -> float:
        return time.time()


def test_who_is_told_is_not_given_an_older_status(world: World) -> None:
    statuses = world.farm.statuses
    follower = world.follower()
    statuses.keep([status(3)], statuses.now())
    on_commit, world.database.on_commit = world.database.on_commit, None
    with world.farm.database.write() as tx:
        tx.log.add([entry(4, "t1")])
    world.database.on_commit = on_commit
    read_at = statuses.now()
    assert numbers(told(follower, 1)) == [4]
    statuses.keep([status(3)], read_at)
    assert statuses.get("t1") is None


@pytest.mark.parametrize("world", ["mariadb-log", "mariadb-redis"], indirect=True)
def test_ids_that_come_to_light_in_another_order(world: World) -> None:
    """One transaction takes its id first and commits last; and what it tells is lost, too."""
    follower = world.follower()
    world.database.on_commit = None
    with world.farm.database.write() as slow:
        slow.log.add([entry(1)])
        with world.farm.database.write() as quick:
            quick.log.add([entry(2)])
        assert numbers(told(follower, 1)) == [2]
    entries = told(follower, 1)
    assert numbers(entries) == [1]
    # Whoever resumes behind the later one is told of the earlier one again.
    late = progress.late_farm_events(world.farm, LOCAL_OWNER, before=logged(world)[-1].id)
    assert numbers(late) == [1]


def test_a_follower_forgets_what_cannot_come_again(world: World) -> None:
    follower = world.follower(late_s=0.3)
    world.write(*range(1, 500))
    told(follower, 499)
    deadline = time.monotonic() + 5.0
    while follower._known:
        assert time.monotonic() < deadline
        follower.next(0.1)
    world.write(500)
    assert numbers(told(follower, 1)) == [500]


@pytest.mark.parametrize("world", ["sqlite-redis", "mariadb-redis"], indirect=True)
def test_redis_goes_and_comes_back(world: World) -> None:
    assert world.redis is not None
    follower = world.follower()
    world.write(1)
    world.redis.kill()
    world.write(2)
    assert sorted(numbers(told(follower, 2))) == [1, 2]
    world.write(3)
    world.redis.start()
    world.write(4)
    assert sorted(numbers(told(follower, 2))) == [3, 4]
    _until(lambda: follower._position is not None, follower)
    # By Redis again, not by a look.
    follower._look_at = time.monotonic() + 60.0
    world.write(5)
    assert numbers(follower.next(1.0)) == [5]


def _until(holds: Callable[[], bool], follower: Follower) -> None:
    deadline = time.monotonic() + 5.0
    while not holds():
        assert time.monotonic() < deadline
        follower.next(0.1)
