"""Making units."""

from __future__ import annotations

from renderfarm.domain.models import RENDERING, Asset, Task, Unit, UnitKind
from renderfarm.domain.needs import needs_gpu
from renderfarm.domain.planning import PlannedUnit
from renderfarm.domain.states import UnitState


def new_unit(
    asset: Asset,
    *,
    unit_id: str,
    task: Task | None,
    position: int,
    planned: PlannedUnit,
    feeds: str | None = None,
    blender: str,
    priority: int,
    peak_memory_bytes: int = 0,
    now: float,
) -> Unit:
    """Return a unit that was never tried: ready, or blocked if it waits for others.

    Args:
        peak_memory_bytes: what earlier attempts to render the asset have needed.
    """
    facts = asset.facts
    opens_scene = facts is not None and planned.kind in (*RENDERING, UnitKind.MERGE)
    scene = None if facts is None or task is None else facts.scene(task.settings.scene)
    return Unit(
        id=unit_id,
        kind=planned.kind,
        project_id=asset.project_id,
        task_id=None if task is None else task.id,
        asset_id=asset.id,
        position=position,
        camera=planned.camera,
        folder=planned.folder,
        blender=blender,
        needs_gpu=opens_scene and task is not None and needs_gpu(task.settings, scene),
        frames=planned.frames,
        frames_done=0,
        part=planned.part,
        feeds=feeds,
        inputs_open=planned.inputs,
        share=planned.share,
        state=UnitState.BLOCKED if planned.inputs else UnitState.READY,
        priority=priority,
        attempt=0,
        epoch=0,
        worker_id=None,
        lease_expires_at=None,
        not_before=0.0,
        progress=0.0,
        progress_note="",
        failed_on=(),
        failures=(),
        failure=None,
        memory_bytes=max(
            facts.memory_bytes if facts is not None and opens_scene else 0,
            peak_memory_bytes if planned.kind in RENDERING else 0,
        ),
        created_at=now,
    )
