"""Who may do what: the principal of a call, and the one function every service asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from renderfarm.errors import Forbidden


class Permission(StrEnum):
    ASSET_READ = "asset.read"
    ASSET_CREATE = "asset.create"
    TASK_READ = "task.read"
    TASK_CREATE = "task.create"
    TASK_CONTROL = "task.control"
    FARM_READ = "farm.read"
    FARM_REPAIR = "farm.repair"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who makes a call."""

    name: str
    permissions: frozenset[Permission]
    projects: frozenset[str] | None
    """Projects that the permissions hold for; None: every project."""

    @property
    def actor(self) -> str:
        """The name that the execution log records."""
        return f"user:{self.name}"


#: The embedded farm belongs to whoever runs it: the operating system has let them in already.
LOCAL_OWNER = Principal(name="local", permissions=frozenset(Permission), projects=None)


def authorise(principal: Principal, permission: Permission, project_id: str | None = None) -> None:
    """Raise Forbidden unless ``principal`` holds ``permission`` for that project (None: for the farm)."""
    in_scope = principal.projects is None or (project_id is not None and project_id in principal.projects)
    if permission not in principal.permissions or not in_scope:
        raise Forbidden(f"{principal.name} may not do this ({permission})")
