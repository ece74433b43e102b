"""Whether the farm can do its work."""

from __future__ import annotations

from renderfarm.errors import RenderfarmError
from renderfarm.ports import Farm
from renderfarm.services.nodes import present_workers


def check_ready(farm: Farm) -> dict[str, str]:
    """Return for each part of the farm ``ok``, or in one line what is wrong with it."""
    parts = {"database": _database(farm)}
    if parts["database"] == "ok":
        parts["workers"] = "ok" if present_workers(farm) else "no worker has started yet"
    return {**parts, **farm.compute.answers()}


def _database(farm: Farm) -> str:
    try:
        farm.database.check()
    except RenderfarmError as error:
        return str(error)
    return "ok"
