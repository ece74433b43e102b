"""The way to Redis: one for all adapters of a process, so that they all know at once when it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from renderfarm.errors import FarmUnavailable, InvalidInput

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: Whoever asks waits no longer than this for Redis: the database has the answer, too.
_TIMEOUT_S = 0.25
#: After a failure nobody tries again for so long.
_PAUSE_S = 1.0


class RedisLink:
    """Asks Redis, and does not while it has just failed to answer. For any number of threads.

    A server that has restarted is asked a second time at once, by a new connection; one that is slow is not.
    """

    def __init__(self, url: str, *, prefix: str = "renderfarm", pause_s: float = _PAUSE_S) -> None:
        """``prefix`` begins the name of every key."""
        self._url = url
        self._prefix = prefix
        self._pause_s = pause_s
        self._paused_until = float("-inf")
        self._trouble: str | None = None
        self._clients: list[Redis] = []
        self.client = self.open()

    def open(self, answer_s: float = 0.0) -> Redis:
        """Return a client of its own connections, for commands that Redis may take ``answer_s`` over."""
        retry = Retry(NoBackoff(), 1, supported_errors=(NoConnection,))
        try:
            client = Redis.from_url(
                self._url, socket_connect_timeout=_TIMEOUT_S, socket_timeout=_TIMEOUT_S + answer_s, retry=retry
            )
        except ValueError:  # whose words may hold the password
            raise InvalidInput("the URL of Redis is not one: redis://USER:PASSWORD@HOST:6379/0 is meant") from None
        self._clients.append(client)
        return client

    def key(self, *parts: str) -> str:
        """Return the name of a key."""
        return ":".join((self._prefix, *parts))

    def ask(self, call: Callable[[], T]) -> T:
        """Return what a call of Redis returns. Raises FarmUnavailable."""
        if time.monotonic() < self._paused_until:
            raise FarmUnavailable(f"Redis does not answer: {self._trouble}")
        try:
            answer = call()
        except RedisError as error:
            raise self._failed(error) from error
        if self._trouble is not None:
            self._trouble = None
            _log.info("Redis answers again")
        return answer

    def tell(self, call: Callable[[], object]) -> None:
        """Make a call of Redis that may as well not happen; the log knows when it does not."""
        try:
            self.ask(call)
        except FarmUnavailable as error:
            _log.debug("not told: %s", error)

    def _failed(self, error: RedisError) -> FarmUnavailable:
        trouble = " ".join(str(error).split()) or type(error).__name__
        if self._trouble is None:
            _log.warning("Redis does not answer; the database does its work meanwhile: %s", trouble)
        self._trouble = trouble
        self._paused_until = time.monotonic() + self._pause_s
        return FarmUnavailable(f"Redis does not answer: {trouble}")

    def check(self) -> None:
        """Raise FarmUnavailable unless Redis takes what it is given: a full or read-only one does not."""
        self.ask(lambda: self.client.set(self.key("check"), b"", px=1000))

    def close(self) -> None:
        """Give back the connections."""
        for client in self._clients:
            client.close()
