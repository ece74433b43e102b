"""The database adapter: SQLAlchemy over SQLite, MySQL or MariaDB."""

from renderfarm.db.database import SqlDatabase

__all__ = ["SqlDatabase"]
