"""Schema migrations by Alembic, run in code: the schema belongs to the program, not to a folder of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from renderfarm.db.engine import is_mysql, migrating_engine
from renderfarm.db.tables import metadata
from renderfarm.errors import FarmUnavailable

_LOCK_WAIT_S = 60
_LOCK_NAME_LENGTH_MAX = 64
#: MySQL's and MariaDB's words for a step that was done already: table, column or index there, or gone.
_DONE_ALREADY = frozenset({1050, 1060, 1061, 1091})


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("renderfarm.db").joinpath("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@cache
def head() -> str | None:
    """Return the revision that this program needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


@contextmanager
def upgraded(engine: Engine) -> Iterator[None]:
    """Run the migrations that are missing, and keep others from beginning with theirs until the end."""
    if is_mysql(engine):
        patient = migrating_engine(engine)
        with patient.connect() as connection, _locked(connection):
            _upgrade_mysql(connection)
            yield
        return
    # The open write transaction keeps a second process waiting; the first rows may come from anybody, in turn.
    with engine.begin() as connection:
        _upgrade(connection)
    yield


def _upgrade(connection: Connection) -> None:
    revision = current(connection)
    if revision == head():
        return
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise FarmUnavailable(
            f"the database has schema {revision}, which this program does not know: it needs a newer renderfarm"
        )
    command.upgrade(_config(connection), "head")


def _upgrade_mysql(connection: Connection) -> None:
    """Upgrade where every change of the schema commits by itself, so that a migration may have died half-way."""
    if current(connection) is None:
        _clear_away_beginnings(connection)
        # Names that differ in case or accents only are different, as they are for SQLite and for file systems.
        connection.execute(text("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"))
    try:
        _upgrade(connection)
    except DBAPIError as error:
        if error.orig is None or error.orig.args[0] not in _DONE_ALREADY:
            raise
        raise FarmUnavailable(
            f"a migration of the database has died half-way after schema {current(connection)}"
            f" ({error.orig.args[-1]}): restore it from its backup, and begin again"
        ) from error
    connection.commit()


def _clear_away_beginnings(connection: Connection) -> None:
    """Drop the empty tables of a first migration that died; leave alone what has rows or is not ours."""
    present = set(inspect(connection).get_table_names()) - {"alembic_version"}
    if not present:
        return
    ours = [table for table in metadata.sorted_tables if table.name in present]
    empty = all(connection.execute(select(func.count()).select_from(table)).scalar_one() == 0 for table in ours)
    if len(ours) < len(present) or not empty:
        raise FarmUnavailable(
            "the database has tables, but none of renderfarm's schema versions: name an empty one, with nothing"
            f" like {min(present)!r} in it"
        )
    metadata.drop_all(connection, tables=ours)


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """Hold a lock of the server that goes with the connection, however that ends."""
    name = f"renderfarm:{connection.engine.url.database}"[:_LOCK_NAME_LENGTH_MAX]
    if (
        connection.execute(text("SELECT GET_LOCK(:name, :wait_s)"), {"name": name, "wait_s": _LOCK_WAIT_S}).scalar()
        != 1
    ):
        raise FarmUnavailable(f"another process has been migrating the database for more than {_LOCK_WAIT_S} s")
    yield


def current(connection: Connection) -> str | None:
    """Return the revision that the database has."""
    return MigrationContext.configure(connection).get_current_revision()


def revision(engine: Engine) -> str | None:
    """Return the revision that the database has, None before its first migration."""
    with engine.connect() as connection:
        return current(connection)


def check_current(engine: Engine) -> None:
    """Raise FarmUnavailable unless the database has the schema that this program needs."""
    present = revision(engine)
    if present != head():
        raise FarmUnavailable(f"the database has schema {present}, this program needs {head()}")
