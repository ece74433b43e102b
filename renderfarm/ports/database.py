"""The database: transactions over its tables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from renderfarm.ports.survey import Survey
from renderfarm.ports.tables import (
    Assets,
    Attempts,
    ExecutionLog,
    Leader,
    Outbox,
    Outputs,
    Projects,
    Tasks,
    Units,
    Workers,
)


class Transaction(Protocol):
    """One atomic change. All of it is visible at the end, or none."""

    @property
    def projects(self) -> Projects: ...
    @property
    def assets(self) -> Assets: ...
    @property
    def tasks(self) -> Tasks: ...
    @property
    def units(self) -> Units: ...
    @property
    def attempts(self) -> Attempts: ...
    @property
    def outputs(self) -> Outputs: ...
    @property
    def log(self) -> ExecutionLog: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def workers(self) -> Workers: ...
    @property
    def leader(self) -> Leader: ...
    @property
    def survey(self) -> Survey: ...


class Database(Protocol):
    def write(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that may change things; commits at the end, rolls back on an exception."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that sees one consistent state and changes nothing."""

    def watch(self) -> Callable[[], bool]:
        """Return what tells, at next to no cost, whether anything may have been committed since it was last asked.

        Not for several threads. Raises FarmUnavailable, then and when it is asked.
        """

    def check(self) -> None:
        """Raise FarmUnavailable unless the database answers and has the present schema."""

    def close(self) -> None: ...
