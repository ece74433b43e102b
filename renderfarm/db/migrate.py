"""Schema migrations by Alembic, run in code: the schema belongs to the program, not to a folder of the user's."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from renderfarm.errors import FarmUnavailable


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("renderfarm.db").joinpath("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """Return the revision that this program needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing. On SQLite the open write transaction keeps a second process waiting."""
    with engine.begin() as connection:
        if current(connection) != head():
            command.upgrade(_config(connection), "head")


def current(connection: Connection) -> str | None:
    """Return the revision that the database has."""
    return MigrationContext.configure(connection).get_current_revision()


def check_current(engine: Engine) -> None:
    """Raise FarmUnavailable unless the database has the schema that this program needs."""
    with engine.connect().execution_options(writes=False) as connection:
        revision = current(connection)
    if revision != head():
        raise FarmUnavailable(f"the database has schema {revision}, this program needs {head()}")
