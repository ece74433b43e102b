"""What every database promises: transactions, fences, order, and a schema that is the program's own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from renderfarm.db import SqlDatabase
from renderfarm.db.engine import open_engine
from renderfarm.db.tables import metadata
from renderfarm.domain.models import Asset, AssetFile, Project
from renderfarm.domain.states import AssetState
from renderfarm.errors import Deposed, FarmUnavailable
from renderfarm.services.repeating import repeated_if_undone
from tests.servers import migrated_mysql_database, mysql_database


@pytest.fixture(params=["sqlite", "mariadb"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlDatabase]:
    with ExitStack() as stack:
        url = None if request.param == "sqlite" else stack.enter_context(mysql_database())
        yield stack.enter_context(closing(SqlDatabase(open_engine(url, tmp_path / "farm.db"))))


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlDatabase]:
    with ExitStack() as stack:
        url = None if request.param == "sqlite" else stack.enter_context(migrated_mysql_database())
        database = stack.enter_context(closing(SqlDatabase(open_engine(url, tmp_path / "farm.db"))))
        database.migrate()
        yield database


def _project(number: int) -> Project:
    return Project(id=f"p{number}", name=f"project {number}", created_at=float(number))


def test_the_migrations_make_exactly_the_tables(database: SqlDatabase) -> None:
    with database.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    assert difference == []


def test_migrating_twice_changes_nothing(database: SqlDatabase) -> None:
    database.migrate()
    database.check()


def test_watch_misses_no_commit(database: SqlDatabase) -> None:
    has_news = database.watch()
    has_news()
    for number in range(3):
        with database.write() as tx:
            tx.projects.add(_project(number))
        assert has_news()


def test_watch_of_sqlite_tells_that_nothing_was_committed(tmp_path: Path) -> None:
    with closing(SqlDatabase(open_engine(None, tmp_path / "farm.db"))) as database:
        database.migrate()
        has_news = database.watch()
        assert has_news()  # nobody knows what was before
        assert not has_news()
        with database.read() as tx:
            tx.log.last_id()
        assert not has_news()


def test_two_that_migrate_at_once(empty: SqlDatabase, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: empty.migrate(), range(4)))
    empty.check()


def test_a_schema_of_a_newer_program_is_left_alone(empty: SqlDatabase) -> None:
    empty.migrate()
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FarmUnavailable, match="schema 9999, which this program does not know"):
        empty.migrate()
    with pytest.raises(FarmUnavailable, match="schema 9999, this program needs"):
        empty.check()


def test_a_database_without_the_schema_is_not_ready(empty: SqlDatabase) -> None:
    with pytest.raises(FarmUnavailable, match="schema None"):
        empty.check()


def test_a_transaction_is_whole_or_not_at_all(database: SqlDatabase) -> None:
    def add_twice() -> None:
        with database.write() as tx:
            tx.projects.add(_project(1))
            tx.projects.add(_project(1))

    with pytest.raises(IntegrityError):
        add_twice()
    with database.read() as tx:
        assert tx.projects.get("p1") is None


def test_writers_wait_for_each_other(database: SqlDatabase) -> None:
    # Each takes the leadership ten times: forty steps, none lost. The very first may meet in a deadlock.
    @repeated_if_undone
    def take() -> None:
        with database.write() as tx:
            tx.leader.take("somebody", 0.0)

    def lead(_: int) -> None:
        for _ in range(10):
            take()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lead, range(4)))
    with database.write() as tx:
        assert tx.leader.take("last", 0.0) == 41


def test_only_the_latest_leader_holds(database: SqlDatabase) -> None:
    with database.write() as tx:
        old = tx.leader.take("old", 0.0)
    with database.write() as tx:
        new = tx.leader.take("new", 1.0)
    with database.write() as tx:
        tx.leader.hold(new, 2.0)
    with pytest.raises(Deposed), database.write() as tx:
        tx.leader.hold(old, 2.0)


def test_a_reader_does_not_wait_for_a_writer(database: SqlDatabase) -> None:
    with database.write() as tx:
        tx.projects.add(_project(2))
        with database.read() as other:
            assert other.projects.get("p2") is None
    with database.read() as tx:
        assert tx.projects.get("p2") == replace(_project(2))


def test_a_reader_sees_one_state_however_long_it_looks(database: SqlDatabase) -> None:
    with database.read() as tx:
        assert tx.projects.get("p3") is None
        with database.write() as other:
            other.projects.add(_project(3))
        assert tx.projects.get("p3") is None
    with database.read() as tx:
        assert tx.projects.get("p3") is not None


def test_names_that_differ_in_case_are_different(database: SqlDatabase) -> None:
    for number, name in enumerate(("shot", "Shot", "shöt", "shot😀")):
        with database.write() as tx:
            tx.projects.add(Project(id=f"c{number}", name=name, created_at=0.0))
    with database.read() as tx:
        assert [tx.projects.get(f"c{number}").name for number in range(4)] == [  # type: ignore[union-attr]
            "shot",
            "Shot",
            "shöt",
            "shot😀",
        ]


def test_versions_of_an_asset_are_counted_one_by_one(database: SqlDatabase) -> None:
    with database.write() as tx:
        tx.projects.add(_project(4))

    def add_some(thread: int) -> list[int]:
        return [_add_version(database, f"a{thread}-{number}") for number in range(5)]

    with ThreadPoolExecutor(4) as pool:
        found = [version for versions in pool.map(add_some, range(4)) for version in versions]
    assert sorted(found) == list(range(1, 21))


def _add_version(database: SqlDatabase, asset_id: str) -> int:
    with database.write() as tx:
        version = tx.assets.latest_version("p4", "shot") + 1
        tx.assets.add(
            Asset(
                id=asset_id,
                project_id="p4",
                owner="local",
                name="shot",
                version=version,
                main_file="shot.blend",
                files=(AssetFile(path="shot.blend", digest="0" * 64, size_bytes=10),),
                file_version="4.5",
                state=AssetState.PENDING,
                facts=None,
                failure=None,
                created_at=0.0,
            )
        )
    return version


def test_foreign_keys_hold(database: SqlDatabase) -> None:
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO asset_files (asset_id, path, digest, size_bytes) VALUES ('nope', 'a', 'b', 1)")
        )
