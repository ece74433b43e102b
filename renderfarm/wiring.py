"""The one place that knows which adapter stands behind which port."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing

from sqlalchemy import Engine
from ulid import ULID

from renderfarm.cache import LogEvents, MemoryStatuses, RedisEvents, RedisLink, RedisStatuses
from renderfarm.db import Changes, SqlDatabase
from renderfarm.db.engine import open_engine
from renderfarm.ports import Compute, Events, Farm, Objects, Queue, Statuses
from renderfarm.queue import RabbitQueue, TableQueue
from renderfarm.services.projects import ensure_default_project
from renderfarm.settings import Settings
from renderfarm.storage import FolderObjects, WebDavLocation, WebDavObjects, parse_storage_url


def prepare_farm(settings: Settings, compute: Compute) -> Farm:
    """Open the farm, with its database brought up to date. Once, by the process that starts the farm."""
    farm = open_farm(settings, compute)
    with _database(settings) as database, database.migrated():
        ensure_default_project(farm)
    return farm


def upgrade_database(settings: Settings) -> tuple[str | None, str | None]:
    """Run the migrations that are missing. Returns the schema before and after."""
    with _database(settings) as database:
        before, _ = database.revision()
        database.migrate()
        return before, database.revision()[0]


def database_revision(settings: Settings) -> tuple[str | None, str | None]:
    """Return the schema that the database has, and the one that this program needs."""
    with _database(settings) as database:
        return database.revision()


def open_farm(settings: Settings, compute: Compute) -> Farm:
    """Open the farm that the settings describe. Each process has its own; close it with ``close_farm``."""
    engine = _engine(settings)
    database = SqlDatabase(engine)
    redis = None if settings.redis_url is None else RedisLink(settings.redis_url, prefix=settings.name)
    statuses, events = _statuses(redis), _events(redis, database)
    database.on_commit = _teller(statuses, events)
    return Farm(
        settings=settings,
        database=database,
        queue=_queue(settings, engine),
        objects=_objects(settings),
        statuses=statuses,
        events=events,
        compute=compute,
        clock=time.time,
        new_id=lambda: str(ULID()).lower(),
        random=random.random,
    )


def _engine(settings: Settings) -> Engine:
    return open_engine(settings.database_url, settings.data / "farm.db")


def _database(settings: Settings) -> AbstractContextManager[SqlDatabase]:
    """Open the database alone."""
    return closing(SqlDatabase(_engine(settings)))


def _queue(settings: Settings, engine: Engine) -> Queue:
    return TableQueue(engine) if settings.amqp_url is None else RabbitQueue(settings.amqp_url, settings.name)


def _objects(settings: Settings) -> Objects:
    reserve_bytes = settings.disk_reserve_bytes
    if settings.storage_url is None:
        return FolderObjects(settings.data / "objects", reserve_bytes)
    location = parse_storage_url(settings.storage_url)
    if isinstance(location, WebDavLocation):
        return WebDavObjects(location, reserve_bytes)
    from renderfarm.storage.s3 import S3Objects  # boto3 takes half a second, and memory, in each process

    return S3Objects(location, reserve_bytes)


def _statuses(redis: RedisLink | None) -> Statuses:
    return MemoryStatuses() if redis is None else RedisStatuses(redis)


def _events(redis: RedisLink | None, database: SqlDatabase) -> Events:
    return LogEvents(database) if redis is None else RedisEvents(redis)


def _teller(statuses: Statuses, events: Events) -> Callable[[Changes], None]:
    def tell(changes: Changes) -> None:
        # In this order: whoever hears of a change must not be given a status from before it.
        statuses.outdate(changes.revisions)
        events.publish(changes.entries)

    return tell


def close_farm(farm: Farm) -> None:
    """Give back what the farm holds open in this process."""
    for part in (farm.queue, farm.events, farm.statuses, farm.objects, farm.database):
        part.close()
