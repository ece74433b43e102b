"""The database port over SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy import Connection, Engine

from renderfarm.db import migrate
from renderfarm.db.assets import SqlAssets, SqlProjects
from renderfarm.db.attempts import SqlAttempts
from renderfarm.db.engine import farm_errors
from renderfarm.db.log import SqlExecutionLog, SqlOutbox
from renderfarm.db.outputs import SqlOutputs
from renderfarm.db.tasks import SqlTasks
from renderfarm.db.units import SqlUnits
from renderfarm.db.workers import SqlLeader, SqlWorkers


class SqlTransaction:
    """The repositories of one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def projects(self) -> SqlProjects:
        return SqlProjects(self._connection)

    @cached_property
    def assets(self) -> SqlAssets:
        return SqlAssets(self._connection)

    @cached_property
    def tasks(self) -> SqlTasks:
        return SqlTasks(self._connection)

    @cached_property
    def units(self) -> SqlUnits:
        return SqlUnits(self._connection)

    @cached_property
    def attempts(self) -> SqlAttempts:
        return SqlAttempts(self._connection)

    @cached_property
    def outputs(self) -> SqlOutputs:
        return SqlOutputs(self._connection)

    @cached_property
    def log(self) -> SqlExecutionLog:
        return SqlExecutionLog(self._connection)

    @cached_property
    def outbox(self) -> SqlOutbox:
        return SqlOutbox(self._connection)

    @cached_property
    def workers(self) -> SqlWorkers:
        return SqlWorkers(self._connection)

    @cached_property
    def leader(self) -> SqlLeader:
        return SqlLeader(self._connection)


class SqlDatabase:
    """Implements ``ports.Database``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def migrate(self) -> None:
        """Bring the schema up to date. Safe to call from several processes at once."""
        with farm_errors():
            migrate.upgrade(self.engine)

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        with farm_errors(), self.engine.begin() as connection:
            yield SqlTransaction(connection)

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        with farm_errors(), self.engine.connect().execution_options(writes=False) as connection, connection.begin():
            yield SqlTransaction(connection)

    def check(self) -> None:
        with farm_errors():
            migrate.check_current(self.engine)

    def close(self) -> None:
        self.engine.dispose()
