"""The database against the cache: what people are told of their tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from renderfarm.domain.states import TASK_ENDED
from renderfarm.ports import Farm, TaskLine
from renderfarm.services.progress import keep_statuses
from renderfarm.services.reconcile.findings import Finding, Kind, Look, Subject

_BATCH = 1000


def every_task(look: Look) -> Iterator[list[TaskLine]]:
    """Yield all tasks in parts, each read in a transaction of its own."""
    after = ""
    while True:
        with look.farm.database.read() as tx:
            lines = tx.survey.tasks(after, _BATCH)
        if not lines:
            return
        yield lines
        after = lines[-1].id


def find_stale(look: Look) -> Iterator[Finding]:
    """Yield the kept statuses whose revision is below the database's. Raises FarmUnavailable."""
    return _find(look, Kind.STALE_STATUS)


def find_missing(look: Look) -> Iterator[Finding]:
    """Yield the open tasks without a kept status, where the scheduler keeps one for each. Raises FarmUnavailable."""
    return _find(look, Kind.MISSING_STATUS)


def _find(look: Look, kind: Kind) -> Iterator[Finding]:
    look.farm.statuses.check()
    for lines in every_task(look):
        yield from (finding for finding in compare(look.farm, lines) if finding.kind is kind)


def compare(farm: Farm, lines: Sequence[TaskLine]) -> Iterator[Finding]:
    """Yield what is wrong with the kept statuses of some tasks."""
    kept = farm.statuses.kept([line.id for line in lines])
    for line in lines:
        revision = kept.get(line.id)
        if revision is None:
            if is_shared(farm) and line.state not in TASK_ENDED:
                yield Finding(
                    kind=Kind.MISSING_STATUS,
                    subject=Subject(task_id=line.id),
                    detail=f"no status is kept of task {line.id}, which is {line.state}",
                    # A change outdates what is kept: only of a task that stands still it should be there.
                    evidence=(line.revision,),
                )
        elif revision < line.revision and (is_shared(farm) or farm.statuses.get(line.id) is not None):
            yield Finding(
                kind=Kind.STALE_STATUS,
                subject=Subject(task_id=line.id),
                detail=f"the kept status of task {line.id} is of revision {revision}, the task of {line.revision}",
                evidence=(revision, line.revision),
            )


def is_shared(farm: Farm) -> bool:
    """Tell whether the cache is one that all processes share, told of every change, and filled by the scheduler.

    A cache in the memory of one process has what that one was asked for, and gives it only while it is fresh.
    """
    return farm.settings.redis_url is not None


def is_still_behind(first: Finding, second: Finding) -> bool:
    """Tell whether what is kept now is older than what the database had at the first look: nobody renews it."""
    return second.evidence[0] < first.evidence[1]


def renew(look: Look, finding: Finding) -> bool:
    """Keep the present status."""
    task_id = finding.subject.task_id or ""
    keep_statuses(look.farm, [task_id])
    return next(_still(look, task_id), None) is None


def _still(look: Look, task_id: str) -> Iterator[Finding]:
    with look.farm.database.read() as tx:
        task = tx.tasks.get(task_id)
    if task is not None:
        kept = look.farm.statuses.kept([task_id])
        if kept.get(task_id, -1) < task.revision:
            yield Finding(kind=Kind.STALE_STATUS, subject=Subject(task_id=task_id), detail="")
