"""Movies of a task's pictures."""

from __future__ import annotations

from collections.abc import Sequence

from renderfarm.domain.leases import AttemptReport, Lease, RenderedFile
from renderfarm.domain.models import Output, OutputRole, Unit
from renderfarm.domain.movies import MovieFormat
from renderfarm.errors import LeaseLost
from renderfarm.ports import Farm
from renderfarm.services.films import film
from renderfarm.services.journal import Cause
from renderfarm.services.results import fenced, new_output, succeed
from renderfarm.services.steps import Steps


def frames_of(farm: Farm, unit: Unit) -> list[Output]:
    """Return the pictures that an encode unit makes a movie of, in order of their frames; one for each frame."""
    with farm.database.read() as tx:
        return film(tx.outputs.of_task(unit.task_id or "").items, unit.folder)


def movie_name(frames: Sequence[Output], movie: MovieFormat) -> str:
    """Return a movie's file name as Blender would give it: ``0001-0250.mp4``."""
    return f"{frames[0].frame:04d}-{frames[-1].frame:04d}{movie.suffix}"


def commit_movie(
    farm: Farm, lease: Lease, frames: Sequence[Output], file: RenderedFile, report: AttemptReport
) -> Output:
    """Make a movie part of its task; return it.

    Raises:
        LeaseLost: also where a frame has been undone meanwhile.
    """
    now = farm.clock()
    cause = Cause(reason=f"a movie of {len(frames)} frames", actor=f"worker:{lease.worker_id}", at=now)
    with farm.database.write() as tx:
        steps = Steps(tx, [lease.task_id]).lock([lease.unit_id])
        unit = fenced(steps.unit(lease.unit_id), lease)
        movie = new_output(farm, unit, lease, file, OutputRole.MOVIE, frames[0].frame, now)
        ids = {frame.id for frame in frames}
        if tx.outputs.present(sorted(ids)) != ids:
            raise LeaseLost(f"frames of movie {movie.name} have been undone")
        steps.add_outputs([movie])
        steps.note_unit(unit, "movie.committed", None, movie.name[:255], cause)
        succeed(steps, unit, report, cause)
        steps.write()
    return movie
