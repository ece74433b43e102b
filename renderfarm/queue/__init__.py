"""The queue adapters."""

from renderfarm.queue.table import TableQueue

__all__ = ["TableQueue"]
