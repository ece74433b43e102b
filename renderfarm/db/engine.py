"""Opening a database: connection settings of each kind, and its errors as the farm's own."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

_BUSY_TIMEOUT_S = 30.0


def sqlite_engine(path: Path) -> Engine:
    """Open (and if need be create) a SQLite database that several processes write to.

    WAL lets readers go on while one process writes (https://sqlite.org/wal.html); ``synchronous=FULL`` keeps a
    committed transaction through a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None},
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
