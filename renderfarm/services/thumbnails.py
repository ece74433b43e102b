"""Small pictures of a task's outputs: one of each, and one of all."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from renderfarm.auth import Principal
from renderfarm.domain.models import Output, OutputRole, Task
from renderfarm.errors import BadPicture, NotFound
from renderfarm.ports import Farm, Transaction
from renderfarm.services.derived import Derived, key_of, made
from renderfarm.services.displays import display_of
from renderfarm.services.films import film, shoot_of
from renderfarm.services.tasks import readable_task

if TYPE_CHECKING:  # its libraries are large
    from renderfarm.media.display import Display

SIDE_PX = 512
#: Of a contact sheet, made at the same time: one is fetched while another is shrunk.
_AT_ONCE = 2
#: Files that hold linear light, which is shown as the scene is.
_LINEAR_SUFFIXES = (".exr", ".hdr")


def thumbnail_of(farm: Farm, principal: Principal, task_id: str, output_id: str, side_px: int = SIDE_PX) -> Derived:
    """Return a small WebP of an output; of a movie, of its first frame.

    Args:
        side_px: its longer side, at most.

    Raises:
        NotFound
    """
    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        output = tx.outputs.get(output_id)
        if output is None or output.task_id != task_id:
            raise NotFound(f"task {task_id} has no output {output_id!r}")
        picture = _first_frame(tx, output) if output.role is OutputRole.MOVIE else output
        display = _display(farm, tx, task, picture)
    return small_copy(farm, picture, (side_px, side_px), display)


def contact_sheet_of(farm: Farm, principal: Principal, task_id: str, camera: str | None) -> Derived:
    """Return a JPEG of a camera's frames so far, of many an even choice.

    Args:
        camera: its name; None: the task's first.

    Raises:
        NotFound: there is no picture yet.
        InvalidSettings: the task does not render from that camera.
    """
    from renderfarm.media.thumbnails import PICTURES_MAX, chosen_frames

    with farm.database.read() as tx:
        task = readable_task(tx, principal, task_id)
        shoot = shoot_of(tx, task)
        folder = shoot.folders[shoot.camera(camera)]
        pictures = {output.frame: output for output in film(tx.outputs.of_task(task_id).items, folder)}
        if not pictures:
            raise NotFound(f"task {task_id} has no pictures yet")
        display = _display(farm, tx, task, next(iter(pictures.values())))
    frames = chosen_frames(list(pictures), PICTURES_MAX)
    thumbnails = {frame: small_copy(farm, pictures[frame], (SIDE_PX, SIDE_PX), display) for frame in frames}

    def make(target: Path, scratch: Path) -> None:
        from renderfarm.media.thumbnails import contact_sheet

        contact_sheet(_made_all(farm, thumbnails, scratch), target)

    key = key_of("contact sheet", [(frame, thumbnail.key) for frame, thumbnail in thumbnails.items()])
    return Derived(key=key, suffix=".jpg", make=make)


def small_copy(
    farm: Farm, output: Output, within_px: tuple[int, int], display: Display | None, suffix: str = ".webp"
) -> Derived:
    """Return a copy of a picture that fits into a width and a height; the display counts for linear light only."""
    if not _is_linear(output):
        display = None

    def make(target: Path, scratch: Path) -> None:
        from renderfarm.media.pictures import open_picture
        from renderfarm.media.thumbnails import shrunk, write_colours

        source = scratch / f"source{PurePosixPath(output.name).suffix}"
        farm.objects.fetch(output.digest, source)
        write_colours(shrunk(open_picture(source), *within_px, display), target)

    return Derived(key=key_of("copy", output.digest, within_px, display_key(display)), suffix=suffix, make=make)


def display_key(display: Display | None) -> object:
    """Return what JSON can tell of a display."""
    return None if display is None else [str(display.config), asdict(display.settings)]


def _display(farm: Farm, tx: Transaction, task: Task, picture: Output) -> Display | None:
    return display_of(farm.settings, task, tx.assets.facts(task.asset_id)) if _is_linear(picture) else None


def _is_linear(picture: Output) -> bool:
    return picture.name.lower().endswith(_LINEAR_SUFFIXES)


def _first_frame(tx: Transaction, movie: Output) -> Output:
    pictures = film(tx.outputs.of_frame(movie.task_id, movie.frame), posixpath.dirname(movie.name))
    if not pictures:
        raise NotFound(f"the first frame of {movie.name} is not there any more")
    return pictures[0]


def _made_all(farm: Farm, thumbnails: Mapping[int, Derived], scratch: Path) -> dict[int, Path]:
    """Return where the thumbnail of each frame is; one of a picture that nobody can read is a file that is none."""
    unreadable = scratch / "unreadable.webp"
    unreadable.touch()

    def path_of(thumbnail: Derived) -> Path:
        try:
            return made(farm, thumbnail)
        except BadPicture:
            return unreadable

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(thumbnails, pool.map(path_of, thumbnails.values()), strict=True))
