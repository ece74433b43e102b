"""A check of the farm on the wire."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from renderfarm.services.reconcile import findings as found
from renderfarm.services.reconcile.findings import CheckOptions, Kind

_DEFAULTS = CheckOptions()


class CheckQuery(BaseModel):
    """How to look."""

    model_config = ConfigDict(extra="forbid")

    objects: bool = Field(default=True, description="Also list the object store, which takes long when it is large.")
    message_age_s: float = Field(default=_DEFAULTS.message_age_s, description="A message older than this is late.")
    publish_age_s: float = Field(default=_DEFAULTS.publish_age_s, description="An output older than this is late.")
    object_grace_s: float = Field(
        default=_DEFAULTS.object_grace_s, description="An object younger than this may still be on its way into a row."
    )

    def to_domain(self) -> CheckOptions:
        """Return the options. Raises InvalidInput."""
        return CheckOptions(
            objects=self.objects,
            message_age_s=self.message_age_s,
            publish_age_s=self.publish_age_s,
            object_grace_s=self.object_grace_s,
        )


class Finding(BaseModel):
    """Two places that disagree. What it is not about is null."""

    kind: Kind
    detail: str = Field(description="One line, for people.")
    repairable: bool = Field(description="False: only people can mend it; the detail says how.")
    repaired: bool
    task_id: str | None
    asset_id: str | None
    unit_id: str | None
    attempt: int | None
    output_id: str | None
    worker_id: str | None
    digest: str | None = Field(description="SHA-256 of an object in the store.")

    @staticmethod
    def of(finding: found.Finding) -> Finding:
        subject = finding.subject
        return Finding(
            kind=finding.kind,
            detail=finding.detail,
            repairable=finding.repairable,
            repaired=finding.repaired,
            task_id=subject.task_id,
            asset_id=subject.asset_id,
            unit_id=subject.unit_id,
            attempt=subject.attempt,
            output_id=subject.output_id,
            worker_id=subject.worker_id,
            digest=subject.digest,
        )


class CheckReport(BaseModel):
    """What a check has found."""

    findings: list[Finding]
    repaired: int = Field(description="How many of the findings are mended.")
    remaining: int = Field(description="How many are not.")
    looked_at: dict[str, int] = Field(description="How many things of each sort were looked at.")
    not_looked_at: dict[Kind, str] = Field(description="Kinds that nobody could look for just now, and why.")
    more: list[Kind] = Field(description="Kinds of which there are more than are listed here.")
    seconds: float

    @staticmethod
    def of(report: found.CheckReport) -> CheckReport:
        return CheckReport(
            findings=[Finding.of(finding) for finding in report.findings],
            repaired=report.repaired,
            remaining=len(report.findings) - report.repaired,
            looked_at=dict(report.looked_at),
            not_looked_at=dict(report.not_looked_at),
            more=sorted(report.more),
            seconds=round(report.seconds, 3),
        )
