"""The same while the farm runs: what the scheduler does now and then so that nothing stays wrong for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from renderfarm.ports import Farm, TaskLine
from renderfarm.services.check import DISAGREEMENTS, confirmed, examine, find, mended
from renderfarm.services.journal import SCHEDULER
from renderfarm.services.progress import keep_statuses
from renderfarm.services.reconcile.findings import CheckOptions, Disagreement, Finding, Kind, Look, Subject
from renderfarm.services.reconcile.statuses import compare, is_shared

log = logging.getLogger(__name__)

_TASKS = 1000
#: A change is dated before its transaction begins, and seen after its end.
_COMMIT_MAX_S = 5.0
#: So that a queue that is slow, but has lost nothing, is not filled up.
_SEND_AGAIN_AFTER_S = 600.0
#: So many lost pictures at once look like a store that is not there. Nobody renders all of it again unasked.
_RENDER_AGAIN_MAX = 100

_BY_KIND = {disagreement.kind: disagreement for disagreement in DISAGREEMENTS}
_QUICK = [_BY_KIND[kind] for kind in (Kind.ORPHANED_LEASE, Kind.UNKNOWN_TO_WORKERS, Kind.LOST_MESSAGE)]
_STATUSES = [_BY_KIND[kind] for kind in (Kind.STALE_STATUS, Kind.MISSING_STATUS)]
_THOROUGH = [_BY_KIND[kind] for kind in (Kind.WRONG_COUNTERS, Kind.MISSING_OBJECT, Kind.ORPHANED_OBJECT)]


class Reconciler:
    """Belongs to the scheduler of one epoch; each of its three methods to one thread, and none to the scheduler's own.

    Every method raises Deposed (another scheduler has taken over) and FarmUnavailable (call again later).
    """

    def __init__(
        self,
        farm: Farm,
        epoch: int,
        options: CheckOptions | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._farm = farm
        self._epoch = epoch
        self._options = options or CheckOptions()
        self._wait = wait
        self._kept_until = farm.clock()
        self._looked_until = farm.clock()
        self._after = ""
        self._suspects: dict[Kind, list[Finding]] = {}
        self._sent_at: dict[Subject, float] = {}

    def _look(self) -> Look:
        return Look(farm=self._farm, options=self._options, actor=SCHEDULER, wait=self._wait, epoch=self._epoch)

    def keep_statuses(self) -> int:
        """Keep the statuses of the tasks that have changed or are being rendered; return how many. Once a second.

        Without a cache that all processes share there is nothing to do. Two reads of the database by an index, of a
        thousand tasks at most, however many there are: milliseconds.
        """
        if not is_shared(self._farm):
            return 0
        now = self._farm.clock()
        with self._farm.database.read() as tx:
            changed = tx.survey.changed_tasks(self._kept_until - _COMMIT_MAX_S, _TASKS)
            rendered = {lease.task_id for lease in tx.units.leases() if lease.task_id is not None}
        self._kept_until = _until(changed, self._kept_until, now)
        task_ids = rendered.union(line.id for line in changed)
        keep_statuses(self._farm, task_ids)
        return len(task_ids)

    def reconcile_once(self) -> list[Finding]:
        """Look for what a second look can find quickly, and mend it; return what was found. Every ten seconds.

        The second look is the next call, so nothing waits. A question to every worker (up to three seconds, if one
        hangs), a few reads of the database by indexes, and the statuses of two thousand tasks at most: those that have
        changed, and some of all others, in turns. Milliseconds at a million units.
        """
        look = self._look()
        kinds = [*_QUICK, *self._status_kinds(look)]
        found, unknown = find(look, kinds)
        for kind, reason in unknown.items():
            log.info("%s cannot be looked for now: %s", kind, reason)
        findings = [
            mended(look, kind, finding)
            for kind in kinds
            for finding in confirmed(kind, self._suspects, found)
            if finding.repairable and self._is_due(finding)
        ]
        self._suspects = found
        return _told(findings)

    def _status_kinds(self, look: Look) -> list[Disagreement]:
        """Return the kinds about statuses, bound to the tasks whose turn it is."""
        if not is_shared(self._farm):
            return []
        lines = self._some_tasks(look)

        def find_in_these(kind: Kind) -> Callable[[Look], Iterable[Finding]]:
            def find_now(look: Look) -> Iterator[Finding]:
                look.farm.statuses.check()
                return (finding for finding in compare(look.farm, lines) if finding.kind is kind)

            return find_now

        return [replace(disagreement, find=find_in_these(disagreement.kind)) for disagreement in _STATUSES]

    def _some_tasks(self, look: Look) -> list[TaskLine]:
        suspects = chain(*(self._suspects.get(kind.kind, []) for kind in _STATUSES))
        with self._farm.database.read() as tx:
            changed = tx.survey.changed_tasks(self._looked_until - _COMMIT_MAX_S, _TASKS)
            others = tx.survey.tasks(self._after, _TASKS)
            suspected = tx.survey.tasks_of([finding.subject.task_id or "" for finding in suspects])
        self._looked_until = _until(changed, self._looked_until, look.at)
        self._after = others[-1].id if len(others) == _TASKS else ""
        return list({line.id: line for line in (*others, *changed, *suspected)}.values())

    def _is_due(self, finding: Finding) -> bool:
        """Tell whether to mend a finding now: a message is not sent again and again while the queue is slow."""
        if finding.kind is not Kind.LOST_MESSAGE:
            return True
        now = self._farm.clock()
        self._sent_at = {subject: at for subject, at in self._sent_at.items() if at > now - _SEND_AGAIN_AFTER_S}
        return self._sent_at.setdefault(finding.subject, now) == now

    def sweep(self) -> list[Finding]:
        """Compare all counters and the whole object store, and mend them; return what was found. Once an hour.

        Reads every unit, output, file and attempt of the database once, a thousand rows at a time, and lists the
        store. At a million units that is about two minutes of reading on MariaDB with two busy cores, minutes for a
        listing over the network, and 8 MB. Each transaction of it takes seconds at most and locks nothing.
        """
        report = examine(self._look, _THOROUGH, repair=False)
        for kind, reason in report.not_looked_at.items():
            log.info("%s cannot be looked for now: %s", kind, reason)
        lost = sum(finding.kind is Kind.MISSING_OBJECT for finding in report.findings)
        if lost > _RENDER_AGAIN_MAX:
            log.error("%s or more objects are not in the store; if they are lost: renderfarm check --repair", lost)
        look = self._look()
        return _told(
            [
                finding
                if finding.kind is Kind.MISSING_OBJECT and lost > _RENDER_AGAIN_MAX
                else mended(look, _BY_KIND[finding.kind], finding)
                for finding in report.findings
            ]
        )


def _until(changed: list[TaskLine], until: float, now: float) -> float:
    """Return up to when all changes have been seen: there may be more than were asked for."""
    seen_until = now if len(changed) < _TASKS else changed[-1].updated_at + _COMMIT_MAX_S
    return seen_until if seen_until > until else now


def _told(findings: list[Finding]) -> list[Finding]:
    for finding in findings:
        log.warning("%s: %s%s", finding.kind, finding.detail, " (mended)" if finding.repaired else "")
    return findings
