"""Projects. The embedded farm has one, in which its one owner works."""

from __future__ import annotations

from renderfarm.domain.models import Project
from renderfarm.ports import Farm

DEFAULT_PROJECT = "default"


def ensure_default_project(farm: Farm) -> None:
    """Make the project that everything belongs to unless its caller names another."""
    with farm.database.write() as tx:
        if tx.projects.get(DEFAULT_PROJECT) is None:
            tx.projects.add(Project(id=DEFAULT_PROJECT, name=DEFAULT_PROJECT, created_at=farm.clock()))
