"""Events by Redis: one stream of bounded length for the whole farm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from renderfarm.cache.redis_link import RedisLink
from renderfarm.domain.models import LogEntry

#: Some 50 MB in Redis: far more than readers fall behind.
_LENGTH_MAX = 100_000
_ENTRIES_PER_CALL = 500
_WAIT_MAX_S = 1.0
_FIELD = b"entry"
_BEFORE_THE_FIRST = "0-0"
_ENTRY = TypeAdapter(LogEntry)

#: KEYS: the stream. ARGV: the length, then the entries. One call, because the client is slower than the server.
_PUBLISH = """
for i = 2, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'entry', ARGV[i]) end
"""


class RedisEvents:
    """Implements ``ports.Events``."""

    def __init__(self, link: RedisLink, length_max: int = _LENGTH_MAX) -> None:
        self._link = link
        self._length_max = length_max
        self._stream = link.key("events")
        self._publish = link.client.register_script(_PUBLISH)
        self._waiting = link.open(answer_s=_WAIT_MAX_S)

    def publish(self, entries: Sequence[LogEntry]) -> None:
        for start in range(0, len(entries), _ENTRIES_PER_CALL):
            bodies = [_ENTRY.dump_json(entry) for entry in entries[start : start + _ENTRIES_PER_CALL]]
            self._send(bodies)

    def _send(self, bodies: Sequence[bytes]) -> None:
        self._link.tell(lambda: self._publish(keys=[self._stream], args=[self._length_max, *bodies]))

    def end(self) -> str:
        latest: Any = self._link.ask(lambda: self._link.client.xrevrange(self._stream, count=1))
        return latest[0][0].decode() if latest else _BEFORE_THE_FIRST

    def read(self, after: str, limit: int, wait_s: float) -> tuple[list[LogEntry], str]:
        block_ms = max(1, int(1000 * min(wait_s, _WAIT_MAX_S)))  # 0 would be for ever
        reply: Any = self._link.ask(lambda: self._waiting.xread({self._stream: after}, count=limit, block=block_ms))
        messages = _messages(reply)
        entries = [entry for _, fields in messages if (entry := _parsed(fields)) is not None]
        return entries, messages[-1][0].decode() if messages else after

    def check(self) -> None:
        self._link.check()

    def close(self) -> None:
        self._link.close()


def _messages(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the messages of the one stream that was read."""
    streams = list(reply.values()) if isinstance(reply, dict) else [messages for _, messages in reply or ()]
    return list(streams[0]) if streams else []


def _parsed(fields: dict[bytes, bytes]) -> LogEntry | None:
    """Return the entry; None: another version of the farm has written it, and the log must be asked."""
    try:
        return _ENTRY.validate_json(fields.get(_FIELD, b""))
    except ValidationError:
        return None
