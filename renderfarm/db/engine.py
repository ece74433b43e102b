"""Opening a database: connection settings of each kind, and its errors as the farm's own."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from renderfarm.errors import FarmUnavailable, RolledBack, StorageFull

_BUSY_TIMEOUT_S = 30.0
#: More than the threads of a Serve replica, so that none waits for a connection.
_CONNECTIONS_MAX = 64
_CONNECTIONS_KEPT = 16

_CONNECT_TIMEOUT_S = 5
#: A connection that was used within this time is taken to be alive.
_PING_AFTER_S = 1.0
#: Below the answer's time limit, so that a writer who waits for another hears of it from the server.
_LOCK_WAIT_TIMEOUT_S = 20
#: Longer than any statement takes on a million units, so that only a server that hangs is given up.
_ANSWER_TIMEOUT_S = 120
#: A migration may copy a large table.
_MIGRATION_TIMEOUT_S = 24 * 3600
_MYSQL_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
    f" SESSION innodb_lock_wait_timeout = {_LOCK_WAIT_TIMEOUT_S}"
)

#: MySQL's and MariaDB's numbers: too many connections (of one user), going down, lock wait timeout, deadlock,
#: interrupted, killed, cannot connect (socket, TCP, name), server gone, connection lost, idle for too long.
_PASSING = frozenset({1040, 1203, 1053, 1205, 1213, 1317, 1927, 2002, 2003, 2005, 2006, 2013, 4031})
#: What says of a transaction even while it commits that nothing of it happened: lock wait timeout, deadlock.
_UNDONE = frozenset({1205, 1213})
#: It answers, but it does not let us: no access to it or to the database, no such database, a read-only copy, no TLS.
_REFUSED = frozenset({2026, 1044, 1045, 1049, 1130, 1142, 1290, 1698, 1836, 3159, 3118})
_NO_SUCH_DATABASE = 1049
#: Disk full, error while writing, table full; the last is InnoDB's for a full disk.
_FULL = frozenset({3, 1021, 1026, 1114})
_PASSING_WORDS = ("locked", "unable to open", "disk I/O")
_FULL_WORDS = ("disk is full", "database or disk", "No space left")


def open_engine(url: str | None, sqlite_path: Path) -> Engine:
    """Open the database that a URL names; None: SQLite in ``sqlite_path``."""
    return sqlite_engine(sqlite_path) if url is None else mysql_engine(url)


def sqlite_engine(path: Path) -> Engine:
    """Open (and if need be create) a SQLite database that several processes write to.

    WAL lets readers go on while one process writes (https://sqlite.org/wal.html); ``synchronous=FULL`` keeps a
    committed transaction through a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None},
        max_overflow=_CONNECTIONS_MAX,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def mysql_engine(url: str) -> Engine:
    """Open a MySQL or MariaDB database for writers.

    They see what is committed at each statement (READ COMMITTED): no locks on gaps between rows, and what they read
    under a lock is never stale.
    """
    return _mysql_engine(url, isolation_level="READ COMMITTED")


def reading_engine(engine: Engine) -> Engine:
    """Return an engine for transactions that see one consistent state and change nothing.

    On MySQL and MariaDB these are connections of their own: to set up each transaction would cost a round trip.
    """
    if not is_mysql(engine):
        return engine.execution_options(writes=False)
    reader = _mysql_engine(engine.url.render_as_string(hide_password=False), isolation_level="REPEATABLE READ")
    event.listen(reader, "connect", _configure_reader)
    return reader


def migrating_engine(engine: Engine) -> Engine:
    """Return an engine whose statements may take as long as migrations do."""
    if not is_mysql(engine):
        return engine
    url = engine.url.render_as_string(hide_password=False)
    return _mysql_engine(
        url, isolation_level="READ COMMITTED", answer_timeout_s=_MIGRATION_TIMEOUT_S, poolclass=NullPool
    )


def is_mysql(engine: Engine) -> bool:
    """Tell MySQL and MariaDB from SQLite."""
    return engine.dialect.name == "mysql"


def _mysql_engine(url: str, *, answer_timeout_s: int = _ANSWER_TIMEOUT_S, **options: Any) -> Engine:
    if "poolclass" not in options:
        options |= {"pool_size": _CONNECTIONS_KEPT, "max_overflow": _CONNECTIONS_MAX - _CONNECTIONS_KEPT}
    connect_args = {
        "charset": "utf8mb4",
        "connect_timeout": _CONNECT_TIMEOUT_S,
        # For the handshake; once that is done, an answer may take longer.
        "read_timeout": _CONNECT_TIMEOUT_S,
        "write_timeout": answer_timeout_s,
        "init_command": _MYSQL_SESSION,
    }
    engine = create_engine(
        make_url(url).set(drivername="mysql+pymysql"),
        connect_args=connect_args,
        # Every connection has ended its transaction when it comes back: a rollback more is a round trip for nothing.
        pool_reset_on_return=None,
        **options,
    )
    event.listen(engine, "connect", partial(_be_patient, answer_timeout_s))
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _check_idle)
    return engine


def _be_patient(answer_timeout_s: int, connection: Any, _record: Any) -> None:
    connection._read_timeout = answer_timeout_s  # it has one limit for the handshake and all else


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used_at_s"] = time.monotonic()


def _check_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Let a server that was restarted cost nobody a failure, and those in quick use no round trip."""
    if time.monotonic() - record.info.get("used_at_s", math.inf) > _PING_AFTER_S:
        try:
            connection.ping(reconnect=False)
        except pymysql.Error as error:
            raise DisconnectionError(str(error)) from error  # the pool opens another one


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # A deferred transaction that turns to writing fails at once if another wrote meanwhile, whatever the busy
    # timeout; one that is to write says so from the start and waits its turn.
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_reader(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Begin; commit at the end, roll back on an exception.

    Raises:
        RolledBack: nothing of it happened, for sure.
        FarmUnavailable: the answer to the commit is missing, so that it may have happened or not.
    """
    with farm_errors(RolledBack if is_mysql(engine) else FarmUnavailable), engine.connect() as connection:
        begun = connection.begin()
        yield connection
        with farm_errors():
            begun.commit()


def watch(engine: Engine) -> Callable[[], bool]:
    """Return what tells whether anything may have been committed since it was last asked; see ``ports.Database``.

    SQLite counts the commits of all other connections (https://www.sqlite.org/pragma.html#pragma_data_version), so this
    has one of its own. MySQL has nothing of the kind: anything may have happened.
    """
    if is_mysql(engine):
        return lambda: True
    with farm_errors():
        connection = engine.raw_connection()
        connection.detach()  # it is not to be given to others
    seen: int | None = None

    def has_news() -> bool:
        nonlocal seen
        before = seen
        cursor = connection.cursor()
        try:
            seen = cursor.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise FarmUnavailable(f"the database does not answer: {error}") from error
        return seen != before

    return has_news


@contextmanager
def farm_errors(passing: type[FarmUnavailable] = FarmUnavailable) -> Iterator[None]:
    """Raise the driver's word on the world outside as the farm's own; programming errors stay what they are.

    Args:
        passing: the error for trouble that may pass, which says whether it is known what has happened.

    Raises:
        StorageFull: the database has no room left.
        FarmUnavailable: it does not answer, or not now; the same may go through later.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise FarmUnavailable(f"the database is busy: {error}") from error
    except DBAPIError as error:
        found = _farm_error(error, passing)
        if found is None:
            raise
        raise found from error


def _farm_error(error: DBAPIError, passing: type[FarmUnavailable]) -> StorageFull | FarmUnavailable | None:
    arguments = error.orig.args if error.orig is not None else ()
    number = arguments[0] if len(arguments) > 1 else None
    text = " ".join(str(arguments[-1] if arguments else error.orig).split())
    if number in _FULL or any(word in text for word in _FULL_WORDS):
        return StorageFull(f"the database has no room left: {text}")
    if number in _UNDONE:
        return RolledBack(f"the database could not do this now: {text}")
    if number in _REFUSED:
        return FarmUnavailable(f"the database refuses: {text}{_advice(number, text)}")
    if error.connection_invalidated or number in _PASSING or any(word in text for word in _PASSING_WORDS):
        return passing(f"the database does not answer: {text}")
    return None


def _advice(number: object, text: str) -> str:
    if number != _NO_SUCH_DATABASE:
        return ""
    name = text.split("'")[1] if text.count("'") > 1 else "…"
    return f"; create it with: CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
