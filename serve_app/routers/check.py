"""Checks: whether all that know a unit's state agree."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from renderfarm.services import check
from serve_app.dependencies import Caller, Farm
from serve_app.problems import problem_responses
from serve_app.schemas.check import CheckQuery, CheckReport

router = APIRouter(prefix="/api/check", tags=["farm"])


@router.get("", summary="Look for disagreements", responses=problem_responses(403, 422, 503))
def check_farm(farm: Farm, caller: Caller, query: Annotated[CheckQuery, Query()]) -> CheckReport:
    """Compare database, cache, queue, workers and object store. Changes nothing; takes seconds, or minutes."""
    return CheckReport.of(check.check_farm(farm, caller, query.to_domain(), repair=False))


@router.post("", summary="Look for disagreements and mend them", responses=problem_responses(403, 422, 503))
def repair_farm(farm: Farm, caller: Caller, query: Annotated[CheckQuery, Query()]) -> CheckReport:
    """Whatever is mended is in the execution logs of its tasks."""
    return CheckReport.of(check.check_farm(farm, caller, query.to_domain(), repair=True))
