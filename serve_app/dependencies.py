"""What routes are given: the farm, the principal of the call, checked query parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from renderfarm import ports
from renderfarm.auth import LOCAL_OWNER, Principal

#: SQL's BIGINT: larger numbers cannot be ids, and some database drivers fail on them.
BIGINT_MAX = 2**63 - 1
#: Rows that one page may hold.
PAGE_MAX = 1000

PrincipalOf = Callable[[Request], Principal]


def local_owner(_request: Request) -> Principal:
    """Return who calls: always the farm's owner, for as long as the farm listens on loopback only."""
    return LOCAL_OWNER


# These are coroutines so that FastAPI calls them in place; functions would each cost a hop to a thread.


async def _farm(request: Request) -> ports.Farm:
    farm: ports.Farm = request.app.state.farm
    return farm


async def _principal(request: Request) -> Principal:
    principal_of: PrincipalOf = request.app.state.principal_of
    return principal_of(request)


Farm = Annotated[ports.Farm, Depends(_farm)]
Caller = Annotated[Principal, Depends(_principal)]


class PageQuery(BaseModel):
    """Which part of a list; an unknown parameter is an error, not silence."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=PAGE_MAX, description="The most items to return.")
    offset: int = Field(default=0, ge=0, le=BIGINT_MAX, description="Items to leave out at the beginning.")


class AfterQuery(BaseModel):
    """Where to go on in a log."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=BIGINT_MAX, description="Entries with a higher id only.")
    limit: int = Field(default=1000, ge=1, le=10 * PAGE_MAX, description="The most entries to return.")


Paged = Annotated[PageQuery, Query()]
After = Annotated[AfterQuery, Query()]
