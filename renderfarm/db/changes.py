"""What a transaction changes, gathered while it is open and told once it is committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from renderfarm.domain.models import LogEntry


class Changes:
    """The changes of one transaction that others follow."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        """New entries of the execution log, with their ids. Those that the database itself made are not among them."""
        self.revisions: dict[str, int] = {}
        """The new revision of each task that changed."""

    def __bool__(self) -> bool:
        return bool(self.entries or self.revisions)

    def add_entries(self, entries: Sequence[LogEntry]) -> None:
        """Note new entries of the log."""
        self.entries += entries
        self.add_revisions(entries)

    def add_revisions(self, entries: Sequence[LogEntry]) -> None:
        """Note the revisions that entries of the log name."""
        for entry in entries:
            if entry.task_id is not None and entry.revision is not None:
                self.add_revision(entry.task_id, entry.revision)

    def add_revision(self, task_id: str, revision: int) -> None:
        """Note that a task has a new revision."""
        self.revisions[task_id] = max(revision, self.revisions.get(task_id, 0))


OnCommit = Callable[[Changes], None]
