"""The database adapter: SQLAlchemy over SQLite, MySQL or MariaDB."""

from renderfarm.db.changes import Changes
from renderfarm.db.database import SqlDatabase

__all__ = ["Changes", "SqlDatabase"]
