"""Opening a database: connection settings of each kind, and its errors as the farm's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from renderfarm.errors import FarmUnavailable, StorageFull

_BUSY_TIMEOUT_S = 30.0
#: More than the threads of a Serve replica, so that none waits for a connection.
_CONNECTIONS_MAX = 64
#: MySQL and MariaDB: lock wait timeout, deadlock, too many connections, server gone, connection lost.
_PASSING_ERRORS = frozenset({1040, 1205, 1213, 2006, 2013})
_PASSING_WORDS = ("locked", "unable to open", "disk I/O")
_FULL_WORDS = ("disk is full", "database or disk")


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


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # A deferred transaction that turns to writing fails at once if another wrote meanwhile, whatever the busy
    # timeout; one that is to write says so from the start and waits its turn.
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def farm_errors() -> Iterator[None]:
    """Raise the driver's word on the world outside as the farm's own; programming errors stay what they are.

    Raises:
        StorageFull: the database has no room left.
        FarmUnavailable: it does not answer, or not now; the same may go through later.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise FarmUnavailable(f"the database is busy: {error}") from error
    except DBAPIError as error:
        text = str(error.orig)
        if any(word in text for word in _FULL_WORDS):
            raise StorageFull(f"the database has no room left: {text}") from error
        if error.connection_invalidated or _is_passing(error.orig):
            raise FarmUnavailable(f"the database does not answer: {text}") from error
        raise


def _is_passing(error: BaseException | None) -> bool:
    number = error.args[0] if error is not None and error.args else None
    return number in _PASSING_ERRORS or any(word in str(error) for word in _PASSING_WORDS)
