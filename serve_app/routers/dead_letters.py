"""Dead letters: what the queue has put aside, and putting it back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from renderfarm.services import dead_letters
from serve_app.dependencies import PAGE_MAX, Caller, Farm
from serve_app.problems import problem_responses
from serve_app.schemas.dead_letters import DeadLetters, Replayed, ReplayIn

router = APIRouter(prefix="/api/dead-letters", tags=["farm"])


class DeadLetterQuery(BaseModel):
    """How many dead letters to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=1, le=PAGE_MAX, description="The most items to return.")


@router.get("", summary="List dead letters", responses=problem_responses(403, 422, 503))
def list_dead_letters(farm: Farm, caller: Caller, query: Annotated[DeadLetterQuery, Query()]) -> DeadLetters:
    """Messages that nobody could deal with; what they are about waits for ever."""
    return DeadLetters.of(dead_letters.list_dead_letters(farm, caller, query.limit))


@router.post("/replay", summary="Replay dead letters", responses=problem_responses(403, 404, 422, 503))
def replay_dead_letters(farm: Farm, caller: Caller, body: ReplayIn | None = None) -> Replayed:
    """Put them back at the end of the queue, as if they had never been delivered."""
    ids = None if body is None else body.ids
    return Replayed(replayed=dead_letters.replay_dead_letters(farm, caller, ids))
