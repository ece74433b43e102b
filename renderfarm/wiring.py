"""The one place that knows which adapter stands behind which port."""

from __future__ import annotations

import random
import time

from ulid import ULID

from renderfarm.db import SqlDatabase
from renderfarm.db.engine import sqlite_engine
from renderfarm.ports import Compute, Farm
from renderfarm.queue import TableQueue
from renderfarm.services.projects import ensure_default_project
from renderfarm.settings import Settings
from renderfarm.storage import FolderObjects


def prepare_farm(settings: Settings, compute: Compute) -> Farm:
    """Open the farm, with its database brought up to date. Once, by the process that starts the farm."""
    database = SqlDatabase(sqlite_engine(settings.data / "farm.db"))
    database.migrate()
    database.close()
    farm = open_farm(settings, compute)
    ensure_default_project(farm)
    return farm


def open_farm(settings: Settings, compute: Compute) -> Farm:
    """Open the farm that the settings describe. Each process has its own; close it with ``close_farm``."""
    engine = sqlite_engine(settings.data / "farm.db")
    return Farm(
        settings=settings,
        database=SqlDatabase(engine),
        queue=TableQueue(engine),
        objects=FolderObjects(settings.data / "objects", settings.disk_reserve_bytes),
        compute=compute,
        clock=time.time,
        new_id=lambda: str(ULID()).lower(),
        random=random.random,
    )


def close_farm(farm: Farm) -> None:
    """Give back what the farm holds open in this process."""
    farm.queue.close()
    farm.database.close()
