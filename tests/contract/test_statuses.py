"""What every status cache promises: never older than two seconds, never back, and nothing lost when it is lost."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from redis import Redis

from renderfarm.auth import LOCAL_OWNER, Permission, Principal
from renderfarm.cache import MemoryStatuses, RedisLink, RedisStatuses
from renderfarm.domain.models import TaskStatus
from renderfarm.domain.states import TaskState
from renderfarm.errors import FarmUnavailable, Forbidden, InvalidInput
from renderfarm.ports import STATUS_AGE_MAX_S, Farm, Statuses, Transaction
from renderfarm.services import progress, tasks
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, open_farm, prepare_farm
from tests.private_servers import PrivateRedis, free_port
from tests.servers import migrated_mysql_database, redis_url
from tests.unit.fakes import FakeCompute
from tests.unit.services.story import Clock, Story

LIFE_S = 0.4
_numbers = itertools.count(1)


@contextmanager
def redis_link(url: str | None = None) -> Iterator[RedisLink]:
    """Connect to Redis under a prefix of the test's own, and remove what has it afterwards."""
    link = RedisLink(url or redis_url(), prefix=f"renderfarm-test-{os.getpid()}-{next(_numbers)}", pause_s=0.2)
    try:
        yield link
    finally:
        for key in link.client.scan_iter(link.key("*")):
            link.client.delete(key)
        link.close()


@pytest.fixture(params=["memory", "redis"])
def statuses(request: pytest.FixtureRequest) -> Iterator[Statuses]:
    if request.param == "memory":
        yield MemoryStatuses(life_s=LIFE_S)
        return
    with redis_link() as link:
        yield RedisStatuses(link, life_s=LIFE_S, near_life_s=0.1)


def status(revision: int, task_id: str = "t1", progress: float = 0.0) -> TaskStatus:
    return TaskStatus(
        task_id=task_id,
        project_id="default",
        status=TaskState.RUNNING,
        progress=progress,
        frames_done=1,
        frames_total=3,
        eta_s=4.5,
        failure=None,
        revision=revision,
    )


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> float:
    """Wait until something is so; return how long it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + timeout_s
        time.sleep(0.01)
    return time.monotonic() - started


# --- one cache -----------------------------------------------------------------------------------------------


def test_what_is_kept_is_given(statuses: Statuses) -> None:
    assert statuses.get("t1") is None
    statuses.keep([status(3), status(5, "t2")], statuses.now())
    assert (statuses.get("t1"), statuses.get("t2")) == (status(3), status(5, "t2"))
    assert statuses.get("t3") is None
    assert statuses.kept(["t1", "t2", "t3"]) == {"t1": 3, "t2": 5}
    statuses.check()


def test_an_older_revision_never_takes_the_place_of_a_newer_one(statuses: Statuses) -> None:
    statuses.keep([status(3)], statuses.now())
    statuses.keep([status(2)], statuses.now())
    assert statuses.get("t1") == status(3)
    statuses.keep([status(4)], statuses.now())
    assert statuses.get("t1") == status(4)


def test_among_equal_revisions_the_later_read_counts(statuses: Statuses) -> None:
    statuses.keep([status(3, progress=20.0)], statuses.now())
    statuses.keep([status(3, progress=10.0)], statuses.now() - 0.1)
    assert statuses.get("t1") == status(3, progress=20.0)
    statuses.keep([status(3, progress=30.0)], statuses.now())
    assert statuses.get("t1") == status(3, progress=30.0)


def test_what_is_outdated_is_neither_given_nor_kept_again(statuses: Statuses) -> None:
    read_at = statuses.now()
    statuses.keep([status(3), status(3, "t2")], read_at)
    statuses.outdate({"t1": 4})
    assert statuses.get("t1") is None
    assert statuses.kept(["t1", "t2"]) == {"t2": 3}
    statuses.keep([status(3)], read_at)  # by a reader that was slow
    assert statuses.get("t1") is None
    statuses.keep([status(4)], statuses.now())
    assert statuses.get("t1") == status(4)
    statuses.outdate({"t1": 2})  # by a writer that was slow
    assert statuses.get("t1") == status(4)
    statuses.outdate({})


def test_a_status_is_given_for_a_short_time_only(statuses: Statuses) -> None:
    statuses.keep([status(3)], statuses.now())
    assert statuses.get("t1") is not None
    assert until(lambda: statuses.get("t1") is None) <= LIFE_S + 0.2
    assert statuses.kept(["t1"]) == {"t1": 3}
    statuses.keep([status(3)], statuses.now())
    assert statuses.get("t1") is not None


def test_its_age_counts_from_the_read(statuses: Statuses) -> None:
    statuses.keep([status(3)], statuses.now() - LIFE_S)
    assert statuses.get("t1") is None
    statuses.keep([status(3)], statuses.now() + 60.0)
    assert statuses.get("t1") is None
    statuses.keep([status(3)], statuses.now() - LIFE_S / 2)
    assert until(lambda: statuses.get("t1") is None) <= LIFE_S / 2 + 0.2


def test_memory_does_not_grow_without_bound() -> None:
    statuses = MemoryStatuses(life_s=60.0)
    for number in range(11_000):
        statuses.keep([status(1, f"t{number}")], statuses.now())
        statuses.outdate({f"u{number}": 2})
    assert statuses.get("t0") is None
    assert statuses.get("t10999") is not None


def test_what_was_just_kept_is_at_hand(statuses: Statuses) -> None:
    statuses.keep([status(3)], statuses.now())
    assert statuses.at_hand("t1") == status(3)
    assert statuses.at_hand("t2") is None
    statuses.outdate({"t1": 4})
    assert statuses.at_hand("t1") is None


# --- Redis ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


def test_all_processes_share_what_redis_keeps() -> None:
    with redis_link() as link:
        one, other = RedisStatuses(link, near_life_s=0.1), RedisStatuses(link, near_life_s=0.1)
        one.keep([status(3)], one.now())
        assert other.get("t1") == status(3)
        one.outdate({"t1": 4})
        assert one.get("t1") is None
        assert until(lambda: other.get("t1") is None) < 0.3  # has it at hand for a moment
        other.keep([status(3)], other.now())
        assert one.kept(["t1"]) == {}


def test_what_is_gone_from_redis_is_read_anew() -> None:
    with redis_link() as link:
        statuses = RedisStatuses(link, near_life_s=0.0)
        statuses.keep([status(3)], statuses.now())
        link.client.delete(link.key("status", "t1"))
        assert statuses.get("t1") is None
        statuses.keep([status(3)], statuses.now())
        assert statuses.get("t1") == status(3)
        assert 0 < int(link.client.ttl(link.key("status", "t1"))) <= 24 * 3600


def test_nonsense_in_redis_is_nothing() -> None:
    with redis_link() as link:
        statuses = RedisStatuses(link, near_life_s=0.0)
        statuses.keep([status(3)], statuses.now())
        link.client.hset(link.key("status", "t1"), "body", '{"task_id": 1}')
        assert statuses.get("t1") is None
        statuses.keep([status(3)], statuses.now())
        assert statuses.get("t1") == status(3)


def test_without_a_server_everything_is_as_if_nothing_were_kept() -> None:
    statuses = RedisStatuses(RedisLink(f"redis://:secret@127.0.0.1:{free_port()}/"), near_life_s=0.0)
    started = time.monotonic()
    for _ in range(100):
        statuses.keep([status(3)], statuses.now())
        statuses.outdate({"t1": 4})
        assert statuses.get("t1") is None
        assert statuses.kept(["t1"]) == {}
    assert time.monotonic() - started < 1.0
    with pytest.raises(FarmUnavailable, match="Redis does not answer") as told:
        statuses.check()
    assert "secret" not in str(told.value)
    statuses.close()


def test_an_outage_is_logged_once_and_heals(server: PrivateRedis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "renderfarm.cache")
    with redis_link(server.url) as link:
        statuses = RedisStatuses(link, near_life_s=0.0)
        statuses.keep([status(3)], statuses.now())
        server.kill()
        for _ in range(50):
            assert statuses.get("t1") is None
        server.start()

        def is_kept() -> bool:
            statuses.keep([status(4)], statuses.now())
            return statuses.get("t1") == status(4)

        assert until(is_kept) < 1.0
        statuses.check()
        server.restart()  # nobody has asked meanwhile: no outage at all
        is_kept()
        assert statuses.get("t1") == status(4)
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == ["Redis does not answer; the database does its work meanwhile", "Redis answers again"]


def test_a_server_that_hangs_holds_nobody_up_and_what_it_was_not_told_is_not_given(server: PrivateRedis) -> None:
    with redis_link(server.url) as link:
        statuses = RedisStatuses(link)
        statuses.keep([status(3)], statuses.now())
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        statuses.outdate({"t1": 4})
        assert statuses.get("t1") is None
        assert time.monotonic() - started < 0.5
        os.kill(server.pid, signal.SIGCONT)
        until(lambda: time.monotonic() > link._paused_until)
        statuses.check()
        # Whether Redis did it late or not at all: this process knows.
        assert statuses.get("t1") is None


def test_a_url_that_is_none_is_refused_without_its_password() -> None:
    for url in ("http://:secret@host/", "redis://:secret@host:port/"):
        with pytest.raises(InvalidInput, match="redis://USER") as told:
            RedisLink(url)
        assert "secret" not in str(told.value)


# --- the farm's two levels -----------------------------------------------------------------------------------


@dataclass
class TwoLevels:
    """A farm, and another process of it that knows nothing of the first but by database and cache."""

    farm: Farm
    other: Farm
    story: Story
    keys: Callable[[], list[bytes]]

    def status(self, task_id: str) -> TaskStatus:
        return progress.get_status(self.other, LOCAL_OWNER, task_id)


class _RealClock(Clock):
    def __call__(self) -> float:
        return time.time()


@pytest.fixture(params=["sqlite", "mariadb"])
def levels(request: pytest.FixtureRequest, tmp_path: Path, server: PrivateRedis) -> Iterator[TwoLevels]:
    with ExitStack() as stack:
        url = None if request.param == "sqlite" else stack.enter_context(migrated_mysql_database())
        settings = Settings(data=tmp_path / "data", runtime=tmp_path, database_url=url, redis_url=server.url)
        farm = prepare_farm(settings, FakeCompute())
        stack.callback(close_farm, farm)
        other = open_farm(settings, FakeCompute())
        stack.callback(close_farm, other)
        redis = stack.enter_context(Redis.from_url(server.url))
        yield TwoLevels(farm, other, Story(farm, _RealClock()), lambda: list(redis.scan_iter("renderfarm:status:*")))


def _count_reads(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    reads: list[int] = []
    read = farm.database.read

    def counted() -> AbstractContextManager[Transaction]:
        reads.append(1)
        return read()

    monkeypatch.setattr(farm.database, "read", counted)
    return reads


def test_miss_then_fill_then_hit(levels: TwoLevels, monkeypatch: pytest.MonkeyPatch) -> None:
    task = levels.story.admitted(frames="1-3")
    reads = _count_reads(levels.other, monkeypatch)
    first = levels.status(task.id)
    assert (first.revision, len(reads), len(levels.keys())) == (task.revision, 1, 1)
    assert levels.status(task.id) == first
    assert len(reads) == 1
    # A change in another process: missed, filled, hit.
    tasks.pause_task(levels.farm, LOCAL_OWNER, task.id)
    until(lambda: levels.status(task.id).status is TaskState.PAUSED)
    assert [levels.status(task.id).status for _ in range(3)] == [TaskState.PAUSED] * 3
    assert len(reads) == 2


def test_a_hit_asks_for_rights_too(levels: TwoLevels) -> None:
    task = levels.story.admitted(frames="1")
    levels.status(task.id)
    stranger = Principal(name="eve", permissions=frozenset(Permission), projects=frozenset({"other"}))
    with pytest.raises(Forbidden):
        progress.get_status(levels.other, stranger, task.id)


def test_a_flushed_cache_is_filled_again(levels: TwoLevels, server: PrivateRedis) -> None:
    task = levels.story.admitted(frames="1-3")
    before = levels.status(task.id)
    server.restart()
    assert levels.keys() == []
    until(lambda: levels.status(task.id) == before and len(levels.keys()) == 1)


def test_a_stale_status_is_mended_by_what_the_next_commit_tells(levels: TwoLevels) -> None:
    task = levels.story.admitted(frames="1-3")
    planted = replace(levels.status(task.id), progress=77.0)
    levels.farm.statuses.keep([planted], levels.farm.statuses.now())
    until(lambda: levels.status(task.id) == planted)
    tasks.pause_task(levels.farm, LOCAL_OWNER, task.id)
    assert levels.farm.statuses.kept([task.id]) == {}
    until(lambda: levels.status(task.id).progress == 0.0)


@pytest.mark.parametrize("told", [True, False], ids=["told", "never-told"])
def test_under_load_no_status_is_older_than_promised(levels: TwoLevels, told: bool) -> None:
    """Some change tasks and some read them; also when the cache hears of no change at all."""
    if not told:
        levels.farm.database.on_commit = None  # type: ignore[attr-defined]
    ages = _ages_under_load(levels, [levels.story.admitted(frames="1").id for _ in range(3)])
    assert len(ages) > 300
    # Never told, a status gets as old as it may; told, only what a process has at hand is a moment late.
    assert max(ages) <= 0.8 if told else 0.8 < max(ages) <= STATUS_AGE_MAX_S


def _ages_under_load(levels: TwoLevels, ids: list[str]) -> list[float]:
    """Return for each read how long before it what it was given had been outdated."""
    changed_at = {(task_id, levels.story.task(task_id).revision): time.monotonic() for task_id in ids}
    ages: list[float] = []
    stop = threading.Event()

    def change(task_id: str) -> None:
        for step in itertools.cycle((tasks.pause_task, tasks.resume_task)):
            revision = step(levels.farm, LOCAL_OWNER, task_id).revision
            changed_at[task_id, revision] = time.monotonic()
            if stop.wait(0.02):
                return

    def read() -> None:
        for task_id in itertools.cycle(ids):
            asked_at = time.monotonic()
            revision = levels.status(task_id).revision
            ages.append(max(0.0, asked_at - changed_at.get((task_id, revision + 1), asked_at)))
            if stop.wait(0.001):
                return

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(change, task_id) for task_id in ids] + [pool.submit(read) for _ in range(3)]
        stop.wait(2.5)
        stop.set()
        for each in running:
            each.result()
    assert len(changed_at) > 30
    return ages
