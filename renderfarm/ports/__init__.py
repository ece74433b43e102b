"""What the services and actors need from the outside, as Protocols. Adapters are wired in ``renderfarm.wiring``."""

from renderfarm.ports.cache import STATUS_AGE_MAX_S, Events, Statuses
from renderfarm.ports.database import Database, Transaction
from renderfarm.ports.farm import Compute, Farm
from renderfarm.ports.objects import Objects, StoredBlob
from renderfarm.ports.queue import DELIVERIES_MAX, DeadLetter, Delivery, Queue
from renderfarm.ports.survey import Admission, BlobOwner, BlobUse, Counters, Survey, TaskLine
from renderfarm.ports.tables import (
    Assets,
    Attempts,
    ExecutionLog,
    InWork,
    Leader,
    Link,
    Outbox,
    OutboxMessage,
    Outputs,
    Page,
    Projects,
    TaskQuery,
    Tasks,
    Units,
    Workers,
)

__all__ = [
    "DELIVERIES_MAX",
    "STATUS_AGE_MAX_S",
    "Admission",
    "Assets",
    "Attempts",
    "BlobOwner",
    "BlobUse",
    "Compute",
    "Counters",
    "Database",
    "DeadLetter",
    "Delivery",
    "Events",
    "ExecutionLog",
    "Farm",
    "InWork",
    "Leader",
    "Link",
    "Objects",
    "Outbox",
    "OutboxMessage",
    "Outputs",
    "Page",
    "Projects",
    "Queue",
    "Statuses",
    "StoredBlob",
    "Survey",
    "TaskLine",
    "TaskQuery",
    "Tasks",
    "Transaction",
    "Units",
    "Workers",
]
