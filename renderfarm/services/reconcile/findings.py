"""What a check can find, what it is told, and what it reports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from renderfarm.errors import InvalidInput
from renderfarm.ports import STATUS_AGE_MAX_S, Farm, Transaction
from renderfarm.services.journal import Cause
from renderfarm.settings import Settings

T = TypeVar("T")

#: Entry of the execution log for whatever a check has mended.
REPAIRED = "check.repaired"
#: A worker tries for so many leases to have its commit written down: what it has put lies there without a row.
_COMMIT_PATIENCE_LEASES = 8


class Kind(StrEnum):
    """Every way in which two places may disagree."""

    STALE_STATUS = "stale_status"
    MISSING_STATUS = "missing_status"
    ORPHANED_LEASE = "orphaned_lease"
    UNKNOWN_TO_WORKERS = "unknown_to_workers"
    UNKNOWN_TO_DATABASE = "unknown_to_database"
    UNSENT_MESSAGE = "unsent_message"
    LOST_MESSAGE = "lost_message"
    UNPUBLISHED_OUTPUT = "unpublished_output"
    WRONG_COUNTERS = "wrong_counters"
    MISSING_OBJECT = "missing_object"
    ORPHANED_OBJECT = "orphaned_object"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a finding is about."""

    task_id: str | None = None
    asset_id: str | None = None
    unit_id: str | None = None
    attempt: int | None = None
    output_id: str | None = None
    worker_id: str | None = None
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One disagreement."""

    kind: Kind
    subject: Subject
    detail: str
    """One line, for people."""
    repairable: bool = True
    repaired: bool = False
    evidence: tuple[int, ...] = ()
    """Numbers by which a second look tells what lasts from what is only in flight."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How a check looks. Raises InvalidInput for values that cannot be meant."""

    second_look_s: float = STATUS_AGE_MAX_S + 0.5
    """What may only be in flight counts when it is still there after this."""
    message_age_s: float = 30.0
    """A message that has not done its work after this is late."""
    publish_age_s: float = 60.0
    """A committed output that has not appeared under its name after this is late."""
    object_grace_s: float = 3600.0
    """A blob may be without a row for this long: it is stored before its row is written."""
    repair_wait_s: float = 5.0
    """How long a repair waits for the scheduler, where the scheduler has to do it."""
    findings_max: int = 1000
    """Of each kind; where there are more, repair and look again."""
    objects: bool = True
    """Also look into the object store, which takes long when it is large."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.name != "objects" and not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{spec.name} must be above 0, not {value}")
        if self.second_look_s < STATUS_AGE_MAX_S:
            raise InvalidInput(f"second_look_s must be at least {STATUS_AGE_MAX_S:g}: a status may be so old")

    def check_against(self, settings: Settings) -> None:
        """Raise InvalidInput for a grace time that commits in progress may need."""
        least_s = _COMMIT_PATIENCE_LEASES * settings.lease_s
        if self.object_grace_s < least_s:
            raise InvalidInput(
                f"object_grace_s must be at least {least_s:g}, not {self.object_grace_s:g}: "
                "a worker may take so long to commit what it has stored"
            )


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    findings: tuple[Finding, ...]
    looked_at: Mapping[str, int]
    """How many things of each sort were looked at."""
    not_looked_at: Mapping[Kind, str]
    """What could not be looked at, and why."""
    more: frozenset[Kind]
    """Kinds of which there are more than were asked for."""
    seconds: float

    @property
    def repaired(self) -> int:
        return sum(finding.repaired for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the farm."""

    farm: Farm
    options: CheckOptions
    actor: str
    """Who does repairs, for the execution log."""
    wait: Callable[[float], None]
    """Lets seconds pass."""
    epoch: int | None = None
    """The scheduler's, when it looks itself: it repairs nothing once another has taken over."""
    counts: Counter[str] = field(default_factory=Counter)
    at: float = field(init=False)
    _known: dict[Any, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", self.farm.clock())

    def once(self, read: Callable[[Look], T]) -> T:
        """Return what ``read`` returns, which several kinds need and one look reads once."""
        if read not in self._known:
            self._known[read] = read(self)
        found: T = self._known[read]
        return found

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Begin a repair. Raises Deposed."""
        with self.farm.database.write() as tx:
            if self.epoch is not None:
                tx.leader.hold(self.epoch, self.farm.clock())
            yield tx

    def cause(self, reason: str) -> Cause:
        return Cause(reason=reason, actor=self.actor, at=self.farm.clock())

    def comes_true(self, is_so: Callable[[], bool]) -> bool:
        """Wake the scheduler, and tell whether it makes something so in time."""
        self.farm.compute.wake()
        waited_s, step_s = 0.0, self.options.repair_wait_s / 20
        while not is_so():
            if waited_s >= self.options.repair_wait_s:
                return False
            self.wait(step_s)
            waited_s += step_s
        return True


def same_evidence(first: Finding, second: Finding) -> bool:
    """Tell whether a second look has found the same as the first."""
    return first.evidence == second.evidence


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One kind: how it is found, and how it is mended."""

    kind: Kind
    find: Callable[[Look], Iterable[Finding]]
    repair: Callable[[Look, Finding], bool]
    """Mends a finding; tells whether that is done. Finding it gone is as good. Raises RenderfarmError."""
    passing: bool
    """It may be only in flight: what a second look does not confirm is no finding."""
    confirms: Callable[[Finding, Finding], bool] = same_evidence
    in_store: bool = False
    """Lists the object store."""
