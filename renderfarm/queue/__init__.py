"""The queue adapters."""

from renderfarm.queue.rabbit import RabbitQueue
from renderfarm.queue.table import TableQueue

__all__ = ["RabbitQueue", "TableQueue"]
