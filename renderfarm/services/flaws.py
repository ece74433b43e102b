"""What looks wrong with a task's pictures: each by itself, and among its neighbours."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from renderfarm.auth import Principal
from renderfarm.domain.flaws import Flaw, FlawKind, Glance
from renderfarm.domain.models import Output, Task
from renderfarm.domain.planning import task_frames
from renderfarm.ports import Farm, Page, Transaction
from renderfarm.services.films import shoot_of
from renderfarm.services.tasks import readable_task


@dataclass(frozen=True, kw_only=True)
class FrameFlaw:
    """One thing that looks wrong with one picture."""

    output_id: str
    name: str
    frame: int
    camera: str | None
    kind: FlawKind
    message: str
    """One line, for people."""


def list_flaws(farm: Farm, principal: Principal, task_id: str, *, limit: int, offset: int) -> Page[FrameFlaw]:
    """Return what looks wrong with a task's pictures so far, by camera and frame.

    Black frames of a fade are left out, and those that are unlike their neighbours added, as far as these are there.

    Raises:
        NotFound
    """
    with farm.database.read() as tx:
        flaws = flaws_so_far(tx, readable_task(tx, principal, task_id))
    found = tuple(flaws)
    return Page(items=found[offset : offset + limit], total=len(found))


def flaws_so_far(tx: Transaction, task: Task) -> Iterator[FrameFlaw]:
    """Read what is kept of a task's pictures; they are compared as the result is taken, after the transaction."""
    impressions = tx.outputs.impressions(task.id)
    if not impressions:
        return iter(())
    frames = task_frames(task.settings, shoot_of(tx, task).scene)
    return _flaws(frames, tx.outputs.of_task(task.id).items, impressions)


def _flaws(frames: Sequence[int], outputs: Sequence[Output], impressions: Mapping[str, bytes]) -> Iterator[FrameFlaw]:
    from renderfarm.media.sequences import flaws_in_sequence  # its libraries are large

    films: dict[tuple[str | None, str], dict[int, Output]] = defaultdict(dict)
    for output in outputs:
        if output.id in impressions:
            films[output.camera, _series(output)][output.frame] = output
    for pictures in films.values():
        glances = {
            frame: Glance(impression=impressions[output.id], flaws=output.flaws or ())
            for frame, output in pictures.items()
        }
        for frame, flaws in flaws_in_sequence(frames, glances).items():
            for flaw in flaws:
                yield _of_frame(pictures[frame], flaw)


def _series(output: Output) -> str:
    """Return a picture's name without the number of its frame: left and right eye are films of their own."""
    numbers = list(re.finditer(rf"(?<!\d)0*{abs(output.frame)}(?!\d)", output.name))
    if not numbers:
        return output.name
    first, end = numbers[-1].span()
    return f"{output.name[:first]}#{output.name[end:]}"


def _of_frame(output: Output, flaw: Flaw) -> FrameFlaw:
    return FrameFlaw(
        output_id=output.id,
        name=output.name,
        frame=output.frame,
        camera=output.camera,
        kind=flaw.kind,
        message=flaw.message,
    )
