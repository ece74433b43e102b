"""Nodes: the machines of the farm and what they do."""

from __future__ import annotations

from fastapi import APIRouter

from renderfarm.services import nodes
from serve_app.dependencies import Caller, Farm
from serve_app.problems import problem_responses
from serve_app.schemas.farm import Nodes

router = APIRouter(prefix="/api/nodes", tags=["farm"])


@router.get("", summary="List nodes and their workers", responses=problem_responses(403))
def list_nodes(farm: Farm, caller: Caller) -> Nodes:
    return Nodes.of(nodes.list_workers(farm, caller))
