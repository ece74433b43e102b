"""The database against the object store: every row's blob, and every blob's row."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from renderfarm.domain.models import Output
from renderfarm.errors import NotFound
from renderfarm.ports import BlobOwner, BlobUse, StoredBlob
from renderfarm.services.journal import note_task, unit_entry
from renderfarm.services.outputs import withdraw
from renderfarm.services.reconcile.findings import REPAIRED, Finding, Kind, Look, Subject
from renderfarm.services.retries import undo_frames

_BATCH = 1000


class DigestSet:
    """The digests of a whole store in 8 bytes each: a million take 8 MB.

    Two that share their first 64 bits count as one, so that a missing blob may go unseen once in 10^13 sweeps.
    """

    def __init__(self) -> None:
        self._parts = tuple(array("Q") for _ in range(256))
        self._sorted = True

    def add(self, digest: str) -> None:
        self._parts[int(digest[:2], 16)].append(int(digest[:16], 16))
        self._sorted = False

    def __contains__(self, digest: str) -> bool:
        if not self._sorted:
            self._parts = tuple(array("Q", sorted(part)) for part in self._parts)
            self._sorted = True
        part, number = self._parts[int(digest[:2], 16)], int(digest[:16], 16)
        place = bisect_left(part, number)
        return place < len(part) and part[place] == number


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What one pass over the store has shown."""

    present: DigestSet = field(default_factory=DigestSet)
    orphans: list[StoredBlob] = field(default_factory=list)
    """Blobs without a row that have been there for longer than the grace time, no more than a report takes."""


def list_store(look: Look) -> Listing:
    """Go through the store once, and ask the database about what is old, a thousand blobs at a time."""
    listing = Listing()
    blobs = look.farm.objects.blobs()
    while batch := list(islice(blobs, _BATCH)):
        look.counts["blobs"] += len(batch)
        for blob in batch:
            listing.present.add(blob.digest)
        if len(listing.orphans) <= look.options.findings_max:
            listing.orphans.extend(_orphans_of(look, batch))
    return listing


def _orphans_of(look: Look, batch: Sequence[StoredBlob]) -> list[StoredBlob]:
    old = [blob for blob in batch if blob.stored_at < look.at - look.options.object_grace_s]
    if not old:
        return []
    with look.farm.database.read() as tx:
        referenced = tx.survey.referenced([blob.digest for blob in old])
    return [blob for blob in old if blob.digest not in referenced]


# --- blobs without a row -------------------------------------------------------------------------------------


def find_orphaned(look: Look) -> Iterator[Finding]:
    """Yield blobs that nothing refers to, and that are too old to be on their way into a row."""
    for blob in look.once(list_store).orphans:
        yield Finding(
            kind=Kind.ORPHANED_OBJECT,
            subject=Subject(digest=blob.digest),
            detail=f"object {blob.digest} of {blob.size_bytes} bytes belongs to nothing",
        )


def remove(look: Look, finding: Finding) -> bool:
    """Remove a blob that still nothing refers to. Right after that was asked, so that nobody comes in between."""
    digest = finding.subject.digest or ""
    with look.farm.database.read() as tx:
        referenced = tx.survey.referenced([digest])
    if not referenced:
        look.farm.objects.remove(digest)
    return True


# --- rows without a blob -------------------------------------------------------------------------------------


def find_missing(look: Look) -> Iterator[Finding]:
    """Yield the rows whose blob is not in the store."""
    present = look.once(list_store).present
    for owner in BlobOwner:
        for batch in _uses(look, owner):
            for use in batch:
                # What was stored after the listing is there all the same.
                if use.digest not in present and not look.farm.objects.has(use.digest):
                    yield from _missing(look, use)


def _uses(look: Look, owner: BlobOwner) -> Iterator[Sequence[BlobUse]]:
    after: tuple[str | int, ...] = ()
    while True:
        with look.farm.database.read() as tx:
            uses = tx.survey.blob_uses(owner, after, _BATCH)
        if not uses:
            return
        look.counts[f"{owner}s"] += len(uses)
        yield uses
        after = uses[-1].key


def _missing(look: Look, use: BlobUse) -> Iterable[Finding]:
    """Tell of a missing blob, unless its row is gone meanwhile."""
    if use.owner is BlobOwner.ASSET_FILE:
        detail = f"file {use.path} of asset {use.asset_id} is not in the object store: upload the asset again"
        subject = Subject(asset_id=use.asset_id, digest=use.digest)
        return [Finding(kind=Kind.MISSING_OBJECT, subject=subject, detail=detail, repairable=False)]
    if use.owner is BlobOwner.LOG:
        unit_id, number = str(use.key[0]), int(use.key[1])
        subject = Subject(unit_id=unit_id, attempt=number, digest=use.digest)
        detail = f"the log of attempt {number} of unit {unit_id} is not in the object store"
        return [Finding(kind=Kind.MISSING_OBJECT, subject=subject, detail=detail)]
    output = _output(look, str(use.key[0]), use.digest)
    return [] if output is None else [_missing_output(output)]


def _missing_output(output: Output) -> Finding:
    subject = Subject(task_id=output.task_id, unit_id=output.unit_id, output_id=output.id, digest=output.digest)
    detail = f"the bytes of {output.name}, frame {output.frame} of task {output.task_id}, are not in the object store"
    return Finding(kind=Kind.MISSING_OBJECT, subject=subject, detail=detail)


def _output(look: Look, output_id: str, digest: str | None) -> Output | None:
    """Return an output if it still has that digest."""
    with look.farm.database.read() as tx:
        output = tx.outputs.get(output_id)
    return None if output is None or output.digest != digest else output


def replace_missing(look: Look, finding: Finding) -> bool:
    """Render a lost frame again, or forget a lost log.

    Raises:
        Conflict: the frame's unit is still at work on others.
        NotFound: an asset's file, which only its owner has.
    """
    subject = finding.subject
    if subject.asset_id is not None:
        raise NotFound("only whoever uploaded the asset has it")
    if look.farm.objects.has(subject.digest or ""):
        return True
    if subject.output_id is not None:
        _render_again(look, finding)
    else:
        _forget_log(look, finding)
    return True


def _render_again(look: Look, finding: Finding) -> None:
    output = _output(look, finding.subject.output_id or "", finding.subject.digest)
    if output is None:
        return
    with look.write() as tx:
        task = tx.tasks.lock(output.task_id)
        if task is None or tx.outputs.get(output.id) is None:
            return
        cause = look.cause(f"{finding.detail}; it is rendered again")
        note_task(tx, task, REPAIRED, cause)
        undone = undo_frames(tx, task, [output], cause)
    for lost in undone:
        withdraw(look.farm, lost)
    look.farm.compute.wake()


def _forget_log(look: Look, finding: Finding) -> None:
    unit_id, number = finding.subject.unit_id or "", finding.subject.attempt or 0
    with look.write() as tx:
        unit, attempt = tx.units.get(unit_id), tx.attempts.get(unit_id, number)
        if unit is None or attempt is None or attempt.log_digest != finding.subject.digest:
            return
        tx.attempts.attach_log(unit_id, number, None)
        tx.log.add([unit_entry(look.cause(finding.detail), REPAIRED, None, None, unit, None)])
