"""Committed outputs: listing, reading, and letting them appear under their final names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from renderfarm.auth import Principal
from renderfarm.domain.models import Output
from renderfarm.errors import NotFound
from renderfarm.ports import Farm, Page
from renderfarm.services.tasks import readable_task

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
    """Let committed outputs appear as ``TASK/NAME`` in the object store, each as a whole."""
    for output in outputs:
        farm.objects.publish(output.digest, published_name(output))
    if outputs:
        with farm.database.write() as tx:
            tx.outputs.mark_published([output.id for output in outputs])


def publish_leftovers(farm: Farm, older_than_s: float) -> int:
    """Publish what a worker committed and did not live to publish; return how many outputs that were."""
    with farm.database.read() as tx:
        unpublished = tx.outputs.unpublished(_BATCH)
    late = [output for output in unpublished if output.committed_at < farm.clock() - older_than_s]
    publish_outputs(farm, late)
    return len(late)


def published_name(output: Output) -> str:
    """Return the name under which an output appears."""
    return f"{output.task_id}/{output.name}"
