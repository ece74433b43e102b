"""What the script of one render unit needs to know. Everything else is in the scene's file."""

from __future__ import annotations

import json
from dataclasses import dataclass

from renderfarm.domain.models import Asset, Task, Unit
from renderfarm.domain.parts import part_to_json
from renderfarm.domain.render_settings import Device, Engine, ImageFormat, PersistentData


@dataclass(frozen=True, kw_only=True)
class UnitSpec:
    """A render unit's data, as its script reads them. ``None`` everywhere means: as the file says."""

    scene_file: str
    """The .blend, as a path with ``/`` relative to the script's folder."""
    scene: str | None
    view_layer: str | None
    camera: str | None
    frames: tuple[int, ...]
    engine: Engine | None
    samples: int | None
    resolution_x_px: int | None
    resolution_y_px: int | None
    percent: int | None
    format: ImageFormat | None
    device: Device
    persistent_data: PersistentData
    """Whether the session keeps render data between frames."""
    part: dict[str, int] | None
    """The part of each frame that is rendered: the fields of a ``Tile`` or a ``SampleRange``."""
    folder: str
    """Folder of the files below the output folder, ``""`` for none."""
    unit_id: str
    task_id: str

    def to_json(self) -> str:
        """Return the spec as one line of ASCII."""
        return json.dumps(vars(self))


def unit_spec(task: Task, unit: Unit, asset: Asset) -> UnitSpec:
    """Return what the script of a task's render unit needs."""
    settings = task.settings
    return UnitSpec(
        scene_file=asset.main_file,
        scene=settings.scene,
        view_layer=settings.view_layer,
        camera=unit.camera,
        frames=unit.frames,
        engine=settings.engine,
        samples=settings.samples,
        resolution_x_px=settings.resolution_x_px,
        resolution_y_px=settings.resolution_y_px,
        percent=settings.percent,
        format=settings.format,
        device=settings.device,
        persistent_data=PersistentData.OFF if task.cold else settings.persistent_data,
        part=None if unit.part is None else part_to_json(unit.part),
        folder=unit.folder,
        unit_id=unit.id,
        task_id=task.id,
    )
