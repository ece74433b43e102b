"""What every database promises: transactions, fences, order, and a schema that is the program's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from renderfarm.db import SqlDatabase
from renderfarm.db.engine import sqlite_engine
from renderfarm.db.tables import metadata
from renderfarm.domain.models import Project
from renderfarm.errors import Deposed, FarmUnavailable

ENGINES: dict[str, Callable[[Path], Engine]] = {"sqlite": lambda folder: sqlite_engine(folder / "farm.db")}


@pytest.fixture(params=ENGINES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlDatabase]:
    database = SqlDatabase(ENGINES[request.param](tmp_path))
    yield database
    database.close()


@pytest.fixture
def database(empty: SqlDatabase) -> SqlDatabase:
    empty.migrate()
    return empty


def _project(number: int) -> Project:
    return Project(id=f"p{number}", name=f"project {number}", created_at=float(number))


def test_the_migrations_make_exactly_the_tables(database: SqlDatabase) -> None:
    with database.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    assert difference == []


def test_migrating_twice_changes_nothing(database: SqlDatabase) -> None:
    database.migrate()
    database.check()


def test_two_that_migrate_at_once(empty: SqlDatabase, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: empty.migrate(), range(4)))
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
    # Each takes the leadership ten times: forty steps, none lost.
    def lead(_: int) -> None:
        for _ in range(10):
            with database.write() as tx:
                tx.leader.take("somebody", 0.0)

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


def test_foreign_keys_hold(database: SqlDatabase) -> None:
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO asset_files (asset_id, path, digest, size_bytes) VALUES ('nope', 'a', 'b', 1)")
        )
