"""The real servers that tests talk to.

Given by ``RENDERFARM_TEST_*_URL``, else those on the standard local ports, else private ones, which are started when
they are first asked for and go with the test run. A server that cannot be had is an error.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache

from sqlalchemy import NullPool, create_engine, delete, make_url, text

from renderfarm.db import SqlDatabase
from renderfarm.db.engine import mysql_engine
from renderfarm.db.tables import metadata
from tests import private_rabbitmq
from tests.private_rabbitmq import PrivateRabbitMq
from tests.private_servers import PrivateMariaDb, PrivateRedis, PrivateServer, mysql_answers, redis_answers

_numbers = itertools.count(1)
#: What this run of tests has made, until its end.
_made = ExitStack()


def close() -> None:
    """Remove what this process has made for its tests: databases and private servers."""
    _made.close()


def amqp_url() -> str:
    """Return the URL of a RabbitMQ that tests may use."""
    standard = "amqp://guest:guest@127.0.0.1:5672/"
    return _url("RENDERFARM_TEST_AMQP_URL", standard, private_rabbitmq.answers, PrivateRabbitMq)


def redis_url() -> str:
    """Return the URL of a Redis that tests may use."""
    return _url("RENDERFARM_TEST_REDIS_URL", "redis://127.0.0.1:6379/", redis_answers, PrivateRedis)


def mysql_url() -> str:
    """Return the URL of a MySQL or MariaDB in which tests may create databases."""
    return _url("RENDERFARM_TEST_DATABASE_URL", "mysql://root@127.0.0.1:3306/", mysql_answers, PrivateMariaDb)


@contextmanager
def mysql_database(server_url: str | None = None) -> Iterator[str]:
    """Create an empty database of this process's own; yield its URL, and drop it afterwards."""
    url = make_url(server_url or mysql_url()).set(drivername="mysql+pymysql")
    name = f"renderfarm_test_{os.getpid()}_{next(_numbers)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(drivername="mysql", database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}"))


@contextmanager
def migrated_mysql_database() -> Iterator[str]:
    """Yield the URL of a database with empty tables, one at a time; made once, as making tables takes long."""
    url = _shared_database()
    try:
        yield url
    finally:
        engine = mysql_engine(url)
        with engine.begin() as connection:
            connection.execute(text("SET SESSION foreign_key_checks = 0"))
            for table in metadata.sorted_tables:
                connection.execute(delete(table))
        engine.dispose()


@cache
def _shared_database() -> str:
    url = _made.enter_context(mysql_database())
    with closing(SqlDatabase(mysql_engine(url))) as database:
        database.migrate()
    return url


def _url(variable: str, standard: str, answers: Callable[[str], bool], private: type[PrivateServer]) -> str:
    given = os.environ.get(variable)
    if given is not None:
        return given
    # From here on that is the answer, also for the processes that this one starts.
    os.environ[variable] = standard if answers(standard) else _made.enter_context(private()).url
    return os.environ[variable]
