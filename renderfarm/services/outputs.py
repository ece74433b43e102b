"""Committed outputs: listing, reading, and letting them appear under their final names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import BinaryIO

from renderfarm.auth import Principal
from renderfarm.domain.models import Output
from renderfarm.errors import NotFound, RenderfarmError
from renderfarm.ports import Farm, Page
from renderfarm.services.tasks import readable_task

log = logging.getLogger(__name__)

_BATCH = 100


def list_outputs(farm: Farm, principal: Principal, task_id: str, *, limit: int, offset: int) -> Page[Output]:
    """Return a task's outputs by camera and frame. Raises NotFound."""
    with farm.database.read() as tx:
        readable_task(tx, principal, task_id)
        return tx.outputs.of_task(task_id, limit, offset)


def open_output(farm: Farm, principal: Principal, task_id: str, output_id: str) -> tuple[Output, BinaryIO]:
    """Open one output for reading; the caller closes it. Raises NotFound."""
    with farm.database.read() as tx:
        readable_task(tx, principal, task_id)
        output = tx.outputs.get(output_id)
    if output is None or output.task_id != task_id:
        raise NotFound(f"task {task_id} has no output {output_id!r}")
    return output, farm.objects.open(output.digest)


def publish_outputs(farm: Farm, outputs: Sequence[Output]) -> None:
    """Let committed outputs appear as ``TASK/NAME`` in the object store, each as a whole.

    Raises:
        NotFound, StorageFull, FarmUnavailable: one could not appear; the others have.
    """
    published: list[Output] = []
    errors: list[RenderfarmError] = []
    for output in outputs:
        try:
            farm.objects.publish(output.digest, published_name(output))
        except RenderfarmError as error:
            errors.append(error)
        else:
            published.append(output)
    if published:
        with farm.database.write() as tx:
            tx.outputs.mark_published([output.id for output in published])
            present = tx.outputs.present([output.id for output in published])
        for output in published:
            if output.id not in present:  # undone by a retry meanwhile
                withdraw(farm, output)
    if errors:
        raise errors[0]


def withdraw(farm: Farm, output: Output) -> None:
    """Let an output that was undone disappear; what has taken its place since, if anything, stands instead."""
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
