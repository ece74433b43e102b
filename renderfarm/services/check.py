"""``renderfarm check``: whether all that know a unit's state agree, and mending it where they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.errors import Deposed, FarmUnavailable, RenderfarmError
from renderfarm.ports import Farm
from renderfarm.services.progress import keep_statuses
from renderfarm.services.reconcile import counters, leases, messages, objects, outputs, statuses
from renderfarm.services.reconcile.findings import (
    CheckOptions,
    CheckReport,
    Disagreement,
    Finding,
    Kind,
    Look,
)

#: Every kind, in the order in which they are looked for and mended.
DISAGREEMENTS = (
    Disagreement(kind=Kind.ORPHANED_LEASE, find=leases.find_orphaned, repair=leases.end_attempt, passing=True),
    Disagreement(
        kind=Kind.UNKNOWN_TO_WORKERS, find=leases.find_unknown_to_workers, repair=leases.end_attempt, passing=True
    ),
    Disagreement(
        kind=Kind.UNKNOWN_TO_DATABASE,
        find=leases.find_unknown_to_database,
        repair=leases.let_scheduler_cancel,
        passing=True,
    ),
    Disagreement(
        kind=Kind.UNSENT_MESSAGE, find=messages.find_unsent, repair=messages.let_scheduler_send, passing=False
    ),
    Disagreement(kind=Kind.LOST_MESSAGE, find=messages.find_lost, repair=messages.send_again, passing=True),
    Disagreement(kind=Kind.UNPUBLISHED_OUTPUT, find=outputs.find_unpublished, repair=outputs.publish, passing=False),
    Disagreement(kind=Kind.WRONG_COUNTERS, find=counters.find_wrong, repair=counters.recount, passing=True),
    Disagreement(
        kind=Kind.MISSING_OBJECT,
        find=objects.find_missing,
        repair=objects.replace_missing,
        passing=False,
        in_store=True,
    ),
    Disagreement(
        kind=Kind.ORPHANED_OBJECT, find=objects.find_orphaned, repair=objects.remove, passing=False, in_store=True
    ),
    # Last, as every repair above gives its task a new revision.
    Disagreement(
        kind=Kind.STALE_STATUS,
        find=statuses.find_stale,
        repair=statuses.renew,
        passing=True,
        confirms=statuses.is_still_behind,
    ),
    Disagreement(kind=Kind.MISSING_STATUS, find=statuses.find_missing, repair=statuses.renew, passing=True),
)

Found = Mapping[Kind, list[Finding]]


def check_farm(
    farm: Farm,
    principal: Principal,
    options: CheckOptions | None = None,
    *,
    repair: bool,
    wait: Callable[[float], None] = time.sleep,
) -> CheckReport:
    """Look for disagreements, and mend them if so asked. Takes seconds, and minutes for a large object store.

    Raises:
        InvalidInput: an option that cannot be meant.
        FarmUnavailable: the database does not answer.
    """
    authorise(principal, Permission.FARM_REPAIR if repair else Permission.FARM_READ)
    options = options or CheckOptions()
    options.check_against(farm.settings)
    farm.database.check()

    def look() -> Look:
        return Look(farm=farm, options=options, actor=principal.actor, wait=wait)

    return examine(look, [kind for kind in DISAGREEMENTS if options.objects or not kind.in_store], repair=repair)


def examine(look: Callable[[], Look], kinds: Sequence[Disagreement], *, repair: bool) -> CheckReport:
    """Look for some kinds, twice where something may be in flight; then mend what was found, if so asked."""
    began_s = time.monotonic()
    first = look()
    found, unknown = find(first, kinds)
    suspects = [kind for kind in kinds if kind.passing and found.get(kind.kind)]
    if suspects:
        first.wait(first.options.second_look_s)
        again, unknown_now = find(look(), suspects)
        unknown |= unknown_now
        found |= {kind.kind: confirmed(kind, found, again) for kind in suspects}
    last, most = look(), first.options.findings_max
    pairs = [(kind, finding) for kind in kinds for finding in found.get(kind.kind, [])[:most]]
    findings = [mended(last, kind, finding) if repair else finding for kind, finding in pairs]
    # A repair changes its task; nobody else may be there to keep the status that follows.
    keep_statuses(
        last.farm, {finding.subject.task_id for finding in findings if finding.repaired and finding.subject.task_id}
    )
    return CheckReport(
        findings=tuple(findings),
        looked_at=dict(first.counts),
        not_looked_at=unknown,
        more=frozenset(kind for kind, those in found.items() if len(those) > most),
        seconds=time.monotonic() - began_s,
    )


def find(look: Look, kinds: Iterable[Disagreement]) -> tuple[dict[Kind, list[Finding]], dict[Kind, str]]:
    """Return what one look finds of some kinds, and why some could not be looked for."""
    found: dict[Kind, list[Finding]] = {}
    unknown: dict[Kind, str] = {}
    for kind in kinds:
        try:
            found[kind.kind] = list(islice(kind.find(look), look.options.findings_max + 1))
        except FarmUnavailable as error:
            unknown[kind.kind] = str(error)
    return found, unknown


def confirmed(kind: Disagreement, first: Found, second: Found) -> list[Finding]:
    """Return what the second look has found again."""
    before = {finding.subject: finding for finding in first.get(kind.kind, [])}
    return [
        finding
        for finding in second.get(kind.kind, [])
        if finding.subject in before and kind.confirms(before[finding.subject], finding)
    ]


def mended(look: Look, kind: Disagreement, finding: Finding) -> Finding:
    """Mend a finding; return it with what became of it. Raises Deposed."""
    if not finding.repairable:
        return finding
    try:
        return replace(finding, repaired=kind.repair(look, finding))
    except Deposed:
        raise
    except RenderfarmError as error:
        return replace(finding, detail=f"{finding.detail}; it cannot be mended now: {error}")
