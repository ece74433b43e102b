"""The database against the queue: what was accepted and has not reached the scheduler."""

from __future__ import annotations

from collections.abc import Iterator

from renderfarm.domain.states import AssetState, TaskState, WorkerState
from renderfarm.ports import Admission, DeadLetter, Transaction
from renderfarm.services.assets import TOPIC_ASSET
from renderfarm.services.journal import asset_entry, note_task
from renderfarm.services.reconcile.findings import REPAIRED, Finding, Kind, Look, Subject
from renderfarm.services.tasks import TOPIC_TASK

#: More dead letters than anybody leaves lying about.
_DEAD_LETTERS_MAX = 10_000
#: The scheduler writes down how a worker was seen at least every few seconds.
_SEEN_MAX_S = 15.0


def _subject_of(topic: str, key: str) -> Subject:
    return Subject(asset_id=key) if topic == TOPIC_ASSET else Subject(task_id=key)


# --- never sent ----------------------------------------------------------------------------------------------


def find_unsent(look: Look) -> Iterator[Finding]:
    """Yield messages that have waited in the outbox for too long."""
    with look.farm.database.read() as tx:
        late = tx.survey.late_messages(look.at - look.options.message_age_s, look.options.findings_max + 1)
    for message in late:
        yield Finding(
            kind=Kind.UNSENT_MESSAGE,
            subject=_subject_of(message.topic, message.key),
            detail=f"the message that {message.topic} {message.key} waits has not been sent",
            evidence=(message.id,),
        )


def let_scheduler_send(look: Look, finding: Finding) -> bool:
    """Wake the scheduler, which empties the outbox; tell whether this message has left it."""

    def has_left() -> bool:
        with look.farm.database.read() as tx:
            late = tx.survey.late_messages(look.at, look.options.findings_max + 1)
        return all((message.id,) != finding.evidence for message in late)

    return look.comes_true(has_left)


# --- lost on its way -----------------------------------------------------------------------------------------


def find_lost(look: Look) -> Iterator[Finding]:
    """Yield tasks and assets that wait to be taken in although no message says so any more.

    Nobody can look into a queue. But messages come in about the order in which they were sent: one is lost when later
    ones have been taken in, or when nothing has been for as long as a scheduler that has workers needs for anything.
    """
    before, limit = look.at - look.options.message_age_s, look.options.findings_max + 1
    with look.farm.database.read() as tx:
        waiting = [(TOPIC_TASK, admission) for admission in tx.survey.unplanned_tasks(before, limit)]
        waiting += [(TOPIC_ASSET, admission) for admission in tx.survey.uninspected_assets(before, limit)]
        overtaken_before = _overtaken_before(look, tx, before)
    overtaken = [(topic, admission) for topic, admission in waiting if admission.waits_since < overtaken_before]
    if overtaken:
        dead = {(letter.topic, letter.key): letter for letter in look.farm.queue.dead(_DEAD_LETTERS_MAX)}
        for topic, admission in overtaken:
            yield _lost(look, topic, admission, dead.get((topic, admission.key)))


def _overtaken_before(look: Look, tx: Transaction, before: float) -> float:
    """Return the time from before which the scheduler has taken in everything that it was sent."""
    latest = tx.survey.latest_admission()
    taken_in_at, accepted_at = latest or (0.0, 0.0)
    in_service = any(
        worker.state is not WorkerState.GONE
        and worker.started_at < before
        and worker.last_seen_at >= look.at - _SEEN_MAX_S
        for worker in tx.workers.all()
    )
    if in_service and taken_in_at < before:
        return before
    return accepted_at - look.options.message_age_s


def _lost(look: Look, topic: str, admission: Admission, letter: DeadLetter | None) -> Finding:
    waits_s = look.at - admission.waits_since
    if letter is None:
        detail = f"{topic} {admission.key} has waited {waits_s:.0f} s to be taken in, and its message is lost"
    else:
        detail = (
            f"{topic} {admission.key} waits, but its message was put aside: {letter.reason}; "
            f"once that is mended: renderfarm dead replay --id {letter.id}"
        )
    subject = _subject_of(topic, admission.key)
    return Finding(kind=Kind.LOST_MESSAGE, subject=subject, detail=detail, repairable=letter is None)


def send_again(look: Look, finding: Finding) -> bool:
    """Put the message into the outbox again; whoever takes it in twice does nothing the second time."""
    with look.write() as tx:
        if finding.subject.task_id is not None:
            _send_task(look, tx, finding.subject.task_id, finding)
        else:
            _send_asset(look, tx, finding.subject.asset_id or "", finding)
    look.farm.compute.wake()
    return True


def _send_task(look: Look, tx: Transaction, task_id: str, finding: Finding) -> None:
    task = tx.tasks.lock(task_id)
    if task is not None and task.state in (TaskState.QUEUED, TaskState.PAUSED) and task.units_total == 0:
        cause = look.cause(finding.detail)
        tx.outbox.add(TOPIC_TASK, task_id, cause.at)
        note_task(tx, task, REPAIRED, cause)


def _send_asset(look: Look, tx: Transaction, asset_id: str, finding: Finding) -> None:
    asset = tx.assets.get(asset_id)
    if asset is not None and asset.state is AssetState.PENDING and tx.units.inspection(asset_id) is None:
        cause = look.cause(finding.detail)
        tx.outbox.add(TOPIC_ASSET, asset_id, cause.at)
        tx.log.add([asset_entry(cause, REPAIRED, None, finding.kind, asset)])
