"""The tables. Portable between SQLite, MySQL 8 and MariaDB 10.6: no RETURNING, no types of one of them only.

Times are seconds since the epoch in UTC, as DOUBLE: they sort, subtract and travel without time zones.
Ids are ULIDs in lower case: later ones sort later, so InnoDB's clustered index grows at its end.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = String(26)
_NAME = String(255)
_STATE = String(16)
_WORKER = String(64)
#: SQLite counts up only in a column that is exactly INTEGER PRIMARY KEY.
_COUNTER = BigInteger().with_variant(Integer, "sqlite")
#: InnoDB's row format holds a path of this length in an index in four-byte characters.
#: Names that differ in case or accents only are different files.
_PATH = String(700).with_variant(mysql.VARCHAR(700, collation="utf8mb4_bin"), "mysql", "mariadb")

projects = Table(
    "projects",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", _NAME, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
)

assets = Table(
    "assets",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("project_id", _ID, ForeignKey("projects.id"), nullable=False),
    Column("owner", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("main_file", Text, nullable=False),
    Column("file_version", String(16), nullable=False),
    Column("state", _STATE, nullable=False),
    Column("facts", JSON(none_as_null=True)),
    Column("failure", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("project_id", "name", "version"),
)

asset_files = Table(
    "asset_files",
    metadata,
    Column("id", _COUNTER, primary_key=True, autoincrement=True),
    Column("asset_id", _ID, ForeignKey("assets.id"), nullable=False, index=True),
    Column("path", Text, nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("project_id", _ID, ForeignKey("projects.id"), nullable=False),
    Column("owner", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("asset_id", _ID, ForeignKey("assets.id"), nullable=False),
    Column("settings", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", _STATE, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("units_total", Integer, nullable=False),
    Column("units_open", Integer, nullable=False),
    Column("units_failed", Integer, nullable=False),
    Column("frames_total", Integer, nullable=False),
    Column("frames_done", Integer, nullable=False),
    Column("render_seconds", Double, nullable=False),
    Column("parts_done", Double, nullable=False, server_default="0"),
    Column("cold", Boolean, nullable=False, server_default=false()),
    Column("verifications", Integer, nullable=False, server_default="0"),
    Column("failure", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("updated_at", Double, nullable=False),
    Index(None, "state", "created_at"),
    Index(None, "created_at"),
    Index(None, "updated_at"),
)

units = Table(
    "units",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", _STATE, nullable=False),
    Column("project_id", _ID, ForeignKey("projects.id"), nullable=False),
    Column("task_id", _ID, ForeignKey("tasks.id")),
    Column("asset_id", _ID, ForeignKey("assets.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("camera", _NAME),
    Column("folder", _NAME, nullable=False),
    Column("blender", String(16), nullable=False),
    Column("needs_gpu", Boolean, nullable=False),
    Column("frames", Text, nullable=False),
    Column("frames_done", Integer, nullable=False),
    Column("part", JSON(none_as_null=True)),
    Column("feeds", _ID),
    Column("inputs_open", Integer, nullable=False, server_default="0"),
    Column("share", Double, nullable=False, server_default="1"),
    Column("state", _STATE, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    # Minus the priority: an index that is read in one direction serves the scheduler, on every database.
    Column("rank", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("worker_id", _WORKER),
    Column("lease_expires_at", Double),
    Column("not_before", Double, nullable=False),
    Column("progress", Double, nullable=False),
    Column("progress_note", _NAME, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False, server_default="0"),
    Column("failed_on", JSON, nullable=False),
    Column("failures", JSON, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Index(None, "task_id", "position"),
    Index(None, "asset_id", "kind"),
    # The order in which the scheduler takes ready units, so that it reads only those it can place.
    Index("ix_units_placeable", "state", "held", "rank", "task_id", "position"),
    Index(None, "state", "not_before"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("unit_id", _ID, ForeignKey("units.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("worker_id", _WORKER, nullable=False),
    Column("node", _NAME, nullable=False),
    Column("blender_version", String(16)),
    Column("state", _STATE, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    Column("log_digest", String(64), index=True),
    Column("peak_memory_bytes", BigInteger),
    Column("devices", JSON(none_as_null=True)),
    Column("render_seconds", Double, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
)

outputs = Table(
    "outputs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("task_id", _ID, ForeignKey("tasks.id"), nullable=False),
    Column("unit_id", _ID, ForeignKey("units.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("frame", Integer, nullable=False),
    Column("camera", _NAME),
    Column("role", _STATE, nullable=False, server_default="picture"),
    Column("name", _PATH, nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", String(64), nullable=False),
    Column("render_seconds", Double, nullable=False),
    Column("committed_at", Double, nullable=False),
    Column("published", Boolean, nullable=False),
    Column("warm", Boolean, nullable=False, server_default=false()),
    Column("flaws", JSON(none_as_null=True)),
    # For its neighbours' sake, and not read with the rest.
    Column("impression", LargeBinary),
    # The database itself refuses a frame that is committed twice.
    UniqueConstraint("task_id", "name"),
    Index(None, "published"),
)

execution_log = Table(
    "execution_log",
    metadata,
    Column("id", _COUNTER, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("project_id", _ID, nullable=False),
    Column("asset_id", _ID),
    Column("task_id", _ID),
    Column("unit_id", _ID),
    Column("attempt", Integer),
    Column("event", String(32), nullable=False),
    Column("old", _NAME),
    Column("new", _NAME),
    Column("reason", Text, nullable=False),
    Column("actor", _NAME, nullable=False),
    Column("revision", Integer),
    Index(None, "task_id", "id"),
    sqlite_autoincrement=True,  # ids are events' ids, too: never given twice
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _COUNTER, primary_key=True, autoincrement=True),
    Column("topic", String(32), nullable=False),
    Column("key", _ID, nullable=False),
    Column("created_at", Double, nullable=False),
    sqlite_autoincrement=True,  # a late relay must not remove a newer message of the same id
)

queue_messages = Table(
    "queue_messages",
    metadata,
    Column("id", _COUNTER, primary_key=True, autoincrement=True),
    Column("topic", String(32), nullable=False),
    Column("key", _ID, nullable=False),
    Column("deliveries", Integer, nullable=False, server_default="0"),
    # Only dead letters have these.
    Column("reason", Text),
    Column("died_at", Double),
    sqlite_autoincrement=True,
)

workers = Table(
    "workers",
    metadata,
    Column("id", _WORKER, primary_key=True),
    Column("node", _NAME, nullable=False),
    Column("address", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("state", _STATE, nullable=False),
    Column("blender_versions", JSON, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("open_scene", _ID),
    Column("unit_id", _ID),
    Column("consecutive_failures", Integer, nullable=False),
    Column("set_aside_until", Double),
    Column("set_aside_reason", Text),
    Column("last_seen_at", Double, nullable=False),
    Column("started_at", Double, nullable=False),
)

leader = Table(
    "leader",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("holder", _NAME, nullable=False),
    Column("renewed_at", Double, nullable=False),
)
