"""The database against the published files: what is committed has to appear."""

from __future__ import annotations

from collections.abc import Iterator

from renderfarm.services.journal import note_task
from renderfarm.services.outputs import publish_outputs, published_name
from renderfarm.services.reconcile.findings import REPAIRED, Finding, Kind, Look, Subject


def find_unpublished(look: Look) -> Iterator[Finding]:
    """Yield outputs that were committed long ago and do not stand under their names."""
    before = look.at - look.options.publish_age_s
    with look.farm.database.read() as tx:
        waiting = tx.outputs.unpublished(look.options.findings_max + 1)
    for output in waiting:
        if output.committed_at < before:
            yield Finding(
                kind=Kind.UNPUBLISHED_OUTPUT,
                subject=Subject(task_id=output.task_id, unit_id=output.unit_id, output_id=output.id),
                detail=f"{published_name(output)} was committed {look.at - output.committed_at:.0f} s ago "
                "and has not appeared",
            )


def publish(look: Look, finding: Finding) -> bool:
    """Let the output appear. Raises NotFound (its blob is missing, which is a finding of its own), StorageFull."""
    with look.farm.database.read() as tx:
        output = tx.outputs.get(finding.subject.output_id or "")
    if output is None or output.published:
        return True
    publish_outputs(look.farm, [output])
    with look.write() as tx:
        task = tx.tasks.get(output.task_id)
        if task is not None:
            note_task(tx, task, REPAIRED, look.cause(f"{published_name(output)} has been published"))
    return True
