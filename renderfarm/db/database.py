"""The database port over SQLAlchemy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy import Connection, Engine

from renderfarm.db import migrate
from renderfarm.db.assets import SqlAssets, SqlProjects
from renderfarm.db.attempts import SqlAttempts
from renderfarm.db.changes import Changes, OnCommit
from renderfarm.db.engine import farm_errors, reading_engine, transaction, watch
from renderfarm.db.log import SqlExecutionLog, SqlOutbox
from renderfarm.db.outputs import SqlOutputs
from renderfarm.db.survey import SqlSurvey
from renderfarm.db.tasks import SqlTasks
from renderfarm.db.units import SqlUnits
from renderfarm.db.workers import SqlLeader, SqlWorkers

_log = logging.getLogger(__name__)


class SqlTransaction:
    """The repositories of one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.changes = Changes()

    @cached_property
    def projects(self) -> SqlProjects:
        return SqlProjects(self._connection)

    @cached_property
    def assets(self) -> SqlAssets:
        return SqlAssets(self._connection)

    @cached_property
    def tasks(self) -> SqlTasks:
        return SqlTasks(self._connection, self.changes)

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
        return SqlExecutionLog(self._connection, self.changes)

    @cached_property
    def outbox(self) -> SqlOutbox:
        return SqlOutbox(self._connection)

    @cached_property
    def workers(self) -> SqlWorkers:
        return SqlWorkers(self._connection)

    @cached_property
    def leader(self) -> SqlLeader:
        return SqlLeader(self._connection)

    @cached_property
    def survey(self) -> SqlSurvey:
        return SqlSurvey(self._connection)


class SqlDatabase:
    """Implements ``ports.Database``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reader = reading_engine(engine)
        self.on_commit: OnCommit | None = None
        """Is told what each transaction of this process has changed, once it is committed."""

    def migrate(self) -> None:
        """Bring the schema up to date. Safe to call from several processes at once."""
        with self.migrated():
            pass

    @contextmanager
    def migrated(self) -> Iterator[None]:
        """Bring the schema up to date; nobody else does, or makes the first rows, until the end of this.

        Raises:
            FarmUnavailable: the database is not there, it is newer than this program, or a former migration of it
                has died half-way.
        """
        with farm_errors(), migrate.upgraded(self.engine):
            yield

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        with transaction(self.engine) as connection:
            tx = SqlTransaction(connection)
            yield tx
        self._tell(tx.changes)

    def _tell(self, changes: Changes) -> None:
        if self.on_commit is None or not changes:
            return
        try:
            self.on_commit(changes)
        except Exception:  # noqa: BLE001 - committed is committed, whatever is wrong with the telling
            _log.exception("a committed change could not be told")

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        with transaction(self._reader) as connection:
            yield SqlTransaction(connection)

    def watch(self) -> Callable[[], bool]:
        return watch(self._reader)

    def check(self) -> None:
        with farm_errors():
            migrate.check_current(self._reader)

    def revision(self) -> tuple[str | None, str | None]:
        """Return the schema that the database has and the one that this program needs."""
        with farm_errors():
            return migrate.revision(self._reader), migrate.head()

    def close(self) -> None:
        self._reader.dispose()
        self.engine.dispose()
