"""A frame as far as it is: the picture, or what its parts make of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from renderfarm.auth import Principal
from renderfarm.domain.parts import part_to_json, picture_size_px
from renderfarm.domain.planning import task_frames
from renderfarm.errors import NotFound
from renderfarm.ports import Farm, Transaction
from renderfarm.services.dependencies import RenderedPart
from renderfarm.services.derived import Derived, key_of, made
from renderfarm.services.displays import display_of
from renderfarm.services.films import Shoot, film, shoot_of
from renderfarm.services.tasks import readable_task
from renderfarm.services.thumbnails import display_key, small_copy

if TYPE_CHECKING:  # its libraries are large
    from renderfarm.media.display import Display


@dataclass(frozen=True, kw_only=True)
class Look:
    """What somebody wants to see."""

    frame: int | None = None
    """None: the task's first."""
    camera: str | None = None
    """None: the task's first."""
    width_px: int = 512
    """At most,"""
    height_px: int = 512
    """and so many rows."""
    suffix: str = ".webp"
    """``.webp``, ``.jpg`` or ``.ppm``."""


def preview_of(farm: Farm, principal: Principal, task_id: str, look: Look) -> Derived:
    """Return a small picture of a frame: whole, or with what is missing left dark while its parts are rendered.

    Raises:
        NotFound: no such task, no such frame, or nothing to see of it yet.
        InvalidSettings: the task does not render from that camera.
    """
    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        shoot = shoot_of(tx, task)
        camera = shoot.camera(look.camera)
        frames = task_frames(task.settings, shoot.scene)
        frame = frames[0] if look.frame is None else look.frame
        if frame not in frames:
            raise NotFound(f"task {task_id} has no frame {frame}")
        whole = film(tx.outputs.of_frame(task_id, frame), shoot.folders[camera])
        parts = None if whole else _parts(tx, task_id, frame, camera)
    display = display_of(farm.settings, task, shoot.facts)
    if whole:
        return small_copy(farm, whole[0], (look.width_px, look.height_px), display, look.suffix)
    if parts is None:
        raise NotFound(f"there is nothing to see of frame {frame} yet")
    return _filling_in(farm, shoot, parts, look, display)


def _parts(tx: Transaction, task_id: str, frame: int, camera: str | None) -> list[RenderedPart] | None:
    """Return the parts of a frame that are there; None: it is not rendered in parts."""
    units = tx.units.some([unit_id for unit_id, _, _ in tx.units.with_frames(task_id, [frame])])
    parts = {unit.id: unit.part for unit in units.values() if unit.camera == camera and unit.part is not None}
    if not parts:
        return None
    outputs = [output for output in tx.outputs.of_units(parts) if output.frame == frame]
    return [RenderedPart(part=parts[output.unit_id], output=output) for output in outputs]


def _filling_in(
    farm: Farm, shoot: Shoot, parts: Sequence[RenderedPart], look: Look, display: Display | None
) -> Derived:
    from renderfarm.media.thumbnails import fitting_size

    size = picture_size_px(shoot.scene, shoot.task.settings)
    small = fitting_size(*size, look.width_px, look.height_px)
    shrunk = [(part, _shrunk(farm, part, size, small)) for part in parts]

    def make(target: Path, _scratch: Path) -> None:
        from renderfarm.media.merging import PartFile
        from renderfarm.media.previews import preview

        files = [PartFile(part=part.part, path=made(farm, derived)) for part, derived in shrunk]
        preview(files, target, whole=size, small=small, display=display)

    key = key_of("preview", size, small, sorted(derived.key for _, derived in shrunk), display_key(display))
    return Derived(key=key, suffix=look.suffix, make=make)


def _shrunk(farm: Farm, part: RenderedPart, size: tuple[int, int], small: tuple[int, int]) -> Derived:
    """Return a part made small, which is kept: when the next one is there, this one need not be read again."""

    def make(target: Path, scratch: Path) -> None:
        from renderfarm.media.merging import PartFile
        from renderfarm.media.previews import shrink_part

        source = scratch / "part.exr"
        farm.objects.fetch(part.output.digest, source)
        shrink_part(PartFile(part=part.part, path=source), target, whole=size, small=small)

    key = key_of("part", part.output.digest, part_to_json(part.part), size, small)
    return Derived(key=key, suffix=".exr", make=make)
