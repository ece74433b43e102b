"""Committed outputs: listing, reading, and letting them appear under their final names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import BinaryIO

from renderfarm.auth import Principal
from renderfarm.domain.models import Output, OutputRole
from renderfarm.errors import NotFound, RenderfarmError
from renderfarm.ports import Farm, Page
from renderfarm.services.tasks import readable_task

log = logging.getLogger(__name__)

#: Long enough to follow a redirect, too short to pass on.
LINK_LIFETIME_S = 300.0
_BATCH = 100


def list_outputs(farm: Farm, principal: Principal, task_id: str, *, limit: int, offset: int) -> Page[Output]:
    """Return a task's outputs by camera and frame. Raises NotFound."""
    with farm.database.read() as tx:
        readable_task(tx, principal, task_id)
        return tx.outputs.of_task(task_id, limit, offset)


def get_output(farm: Farm, principal: Principal, task_id: str, output_id: str) -> Output:
    """Return one output. Raises NotFound."""
    with farm.database.read() as tx:
        readable_task(tx, principal, task_id)
        output = tx.outputs.get(output_id)
    if output is None or output.task_id != task_id:
        raise NotFound(f"task {task_id} has no output {output_id!r}")
    return output


def output_link(farm: Farm, output: Output) -> str | None:
    """Return a URL by which anybody may read the file for some minutes; None: read it with ``open_output``."""
    if not farm.settings.storage_links:
        return None
    name = output.name.rpartition("/")[2]
    return farm.objects.link(output.digest, name=name, media_type=output.media_type, lifetime_s=LINK_LIFETIME_S)


def open_output(farm: Farm, output: Output) -> BinaryIO:
    """Open an output's file for reading; the caller closes it. Raises NotFound."""
    return farm.objects.open(output.digest)


def publish_outputs(farm: Farm, outputs: Sequence[Output]) -> None:
    """Let committed outputs appear as ``TASK/NAME`` in the object store, each as a whole; parts of frames never do.

    Raises:
        NotFound, StorageFull, FarmUnavailable: one could not appear; the others have.
    """
    published: list[Output] = []
    errors: list[RenderfarmError] = []
    for output in (output for output in outputs if output.role is not OutputRole.PART):
        try:
            farm.objects.publish(output.digest, published_name(output))
        except RenderfarmError as error:
            errors.append(error)
        else:
            published.append(output)
    if published:
        _mark_published(farm, published)
    if errors:
        raise errors[0]


def _mark_published(farm: Farm, published: Sequence[Output]) -> None:
    with farm.database.write() as tx:
        ids = [output.id for output in published]
        all_there = tx.outputs.mark_published(ids) == len(ids)
        present = set(ids) if all_there else tx.outputs.present(ids)
    for output in published:
        if output.id not in present:  # undone by a retry meanwhile
            withdraw(farm, output)


def withdraw(farm: Farm, output: Output) -> None:
    """Let an output that was undone disappear; what has taken its place since, if anything, stands instead."""
    if output.role is OutputRole.PART:
        return  # it has never appeared
    with farm.database.read() as tx:
        successor = tx.outputs.named(output.task_id, output.name)
    if successor is None:
        farm.objects.unpublish(published_name(output))
    else:
        farm.objects.publish(successor.digest, published_name(successor))


def publish_leftovers(farm: Farm, older_than_s: float) -> int:
    """Publish what a worker committed and did not live to publish; return how many outputs that were."""
    with farm.database.read() as tx:
        unpublished = tx.outputs.unpublished(_BATCH)
    late = [output for output in unpublished if output.committed_at < farm.clock() - older_than_s]
    for output in late:
        try:
            publish_outputs(farm, [output])
        except RenderfarmError as error:  # this one's file; the others' are no worse for it
            log.error("output %s of task %s cannot appear: %s", output.name, output.task_id, error)
    return len(late)


def published_name(output: Output) -> str:
    """Return the name under which an output appears."""
    return f"{output.task_id}/{output.name}"
