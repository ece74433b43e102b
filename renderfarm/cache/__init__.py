"""What may be forgotten at any moment: the statuses of tasks, and the stream of events."""

from renderfarm.cache.log_events import LogEvents
from renderfarm.cache.memory import MemoryStatuses
from renderfarm.cache.redis_events import RedisEvents
from renderfarm.cache.redis_link import RedisLink
from renderfarm.cache.redis_statuses import RedisStatuses

__all__ = ["LogEvents", "MemoryStatuses", "RedisEvents", "RedisLink", "RedisStatuses"]
