"""Statuses in Redis: a hash for each task, that every process of the farm sees."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from renderfarm.cache.memory import MemoryStatuses
from renderfarm.cache.redis_link import RedisLink
from renderfarm.domain.models import TaskStatus
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import STATUS_AGE_MAX_S

LIFE_S = 0.65 * STATUS_AGE_MAX_S
#: In this process, on top of that; leaves a tenth of the age for the way to whoever asks.
NEAR_LIFE_S = 0.25 * STATUS_AGE_MAX_S
#: Long after nobody asks any more.
_FORGOTTEN_AFTER_S = 24 * 3600
_STATUS = TypeAdapter(TaskStatus)

# A hash has ``floor``, the lowest revision that may be told, and while something is kept: ``revision``, ``body``, and
# ``read_at``. All times are by the clock of Redis, so that the machines of the farm need not agree on theirs.
_NOW = """
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
"""

#: KEYS: the hash. ARGV: life in seconds.
_GET = (
    _NOW
    + """
local kept = redis.call('HMGET', KEYS[1], 'read_at', 'body')
if not kept[1] then return false end
local age = now() - tonumber(kept[1])
if age < 0 or age >= tonumber(ARGV[1]) then return false end
return kept[2]
"""
)

#: KEYS: the hashes. ARGV: seconds since the read, seconds until forgotten, then revision and body of each.
_KEEP = (
    _NOW
    + """
local read_at = now() - tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  local revision, body = tonumber(ARGV[2 * i + 1]), ARGV[2 * i + 2]
  local kept = redis.call('HMGET', key, 'floor', 'revision', 'read_at')
  local floor, old, old_read_at = tonumber(kept[1]) or 0, tonumber(kept[2]) or -1, tonumber(kept[3]) or 0
  if revision >= floor and (revision > old or (revision == old and read_at >= old_read_at)) then
    redis.call('HSET', key, 'revision', revision, 'read_at', string.format('%.6f', read_at), 'body', body)
    redis.call('EXPIRE', key, ARGV[2])
  end
end
"""
)

#: KEYS: the hashes. ARGV: seconds until forgotten, then the new floor of each.
_OUTDATE = """
for i, key in ipairs(KEYS) do
  local floor = tonumber(ARGV[i + 1])
  local kept = redis.call('HMGET', key, 'floor', 'revision')
  if floor > (tonumber(kept[1]) or 0) then
    redis.call('HSET', key, 'floor', floor)
    redis.call('EXPIRE', key, ARGV[1])
    if kept[2] and tonumber(kept[2]) < floor then redis.call('HDEL', key, 'revision', 'read_at', 'body') end
  end
end
"""


class RedisStatuses:
    """Implements ``ports.Statuses``.

    This process has the latest of them at hand, for a moment. What it knows to be outdated it does not give even if
    Redis was never told, being away.
    """

    def __init__(self, link: RedisLink, life_s: float = LIFE_S, near_life_s: float = NEAR_LIFE_S) -> None:
        self._link = link
        self._life_s = life_s
        self._near = MemoryStatuses(near_life_s)
        self._get = link.client.register_script(_GET)
        self._keep = link.client.register_script(_KEEP)
        self._outdate = link.client.register_script(_OUTDATE)

    def at_hand(self, task_id: str) -> TaskStatus | None:
        return self._near.get(task_id)

    def get(self, task_id: str) -> TaskStatus | None:
        near = self._near.get(task_id)
        return self._shared(task_id) if near is None else near

    def _shared(self, task_id: str) -> TaskStatus | None:
        read_at = self.now()
        try:
            body = self._link.ask(lambda: self._get(keys=[self._key(task_id)], args=[self._life_s]))
        except FarmUnavailable:
            return None
        if body is None:
            return None
        try:
            status = _STATUS.validate_json(body)
        except ValidationError:  # another version of the farm kept it
            return None
        self._near.keep([status], read_at)
        return status if self._near.allows(status) else None

    def now(self) -> float:
        return self._near.now()

    def keep(self, statuses: Sequence[TaskStatus], read_at: float) -> None:
        self._near.keep(statuses, read_at)
        allowed = [status for status in statuses if self._near.allows(status)]
        age_s = self.now() - read_at
        if not allowed or not 0.0 <= age_s < self._life_s:
            return
        args: list[float | bytes] = [age_s, _FORGOTTEN_AFTER_S]
        for status in allowed:
            args += [status.revision, _STATUS.dump_json(status)]
        keys = [self._key(status.task_id) for status in allowed]
        self._link.tell(lambda: self._keep(keys=keys, args=args))

    def outdate(self, revisions: Mapping[str, int]) -> None:
        if not revisions:
            return
        self._near.outdate(revisions)
        keys = [self._key(task_id) for task_id in revisions]
        self._link.tell(lambda: self._outdate(keys=keys, args=[_FORGOTTEN_AFTER_S, *revisions.values()]))

    def kept(self, task_ids: Collection[str]) -> dict[str, int]:
        def ask() -> list[bytes | None]:
            with self._link.client.pipeline(transaction=False) as pipeline:
                for task_id in task_ids:
                    pipeline.hget(self._key(task_id), "revision")
                return list(pipeline.execute())

        try:
            revisions = self._link.ask(ask)
        except FarmUnavailable:
            return {}
        return {
            task_id: int(revision)
            for task_id, revision in zip(task_ids, revisions, strict=True)
            if revision is not None
        }

    def _key(self, task_id: str) -> str:
        return self._link.key("status", task_id)

    def check(self) -> None:
        self._link.check()

    def close(self) -> None:
        self._link.close()
