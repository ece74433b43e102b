"""A connection to RabbitMQ with a thread of its own, opened when it is first needed and again whenever it is lost.

The thread answers heartbeats however busy the process is, and pika's connections may be used by one thread only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorException,
    AMQPConnectorPhaseErrorBase,
    AMQPConnectorStackTimeout,
)
from pika.exceptions import (
    AMQPError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionClosedByClient,
    ConnectionOpenAborted,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)

from renderfarm.errors import FarmUnavailable, InvalidSettings
from renderfarm.queue.channels import fail, settle

log = logging.getLogger(__name__)
# It tells of every failed attempt in many lines, with tracebacks; we do in one.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class Endable(Protocol):
    """A session."""

    def end(self) -> None:
        """Begin nothing more: the connection is lost, or about to be closed."""


S = TypeVar("S", bound=Endable)
T = TypeVar("T")

#: No caller waits longer for an answer.
ANSWER_S = 5.0
_CONNECT_S = 4.0
_HEARTBEAT_S = 20
_CLOSE_S = 2.0
_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 2.0
#: What can go wrong outside of this program.
TROUBLE = (AMQPError, AMQPConnectorException, OSError, TimeoutError)
_WORDS: dict[type[BaseException], str] = {
    ProbableAuthenticationError: "it refuses the user's name or password",
    ProbableAccessDeniedError: "it refuses the virtual host",
    IncompatibleProtocolError: "what answers there is no RabbitMQ",
    AMQPHeartbeatTimeout: "it does not answer any more",
    StreamLostError: "the connection was lost",
    ConnectionClosedByClient: "a queue or a channel was lost",
    AMQPConnectorStackTimeout: "no answer in time",
    ConnectionOpenAborted: "no answer in time",
    TimeoutError: "no answer in time",
}


def parameters_of(url: str) -> pika.URLParameters:
    """Return how to connect; what the URL's query says goes before our own choice. Raises InvalidSettings."""
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("another kind of URL")
        wanted = pika.URLParameters(url)
    except Exception as error:  # noqa: BLE001  pika raises what it likes, and its words may hold the password
        raise InvalidSettings(
            "the URL of RabbitMQ cannot be read; write amqp://USER:PASSWORD@HOST:5672/VHOST"
        ) from error.with_traceback(None)
    if wanted.heartbeat is None:
        wanted.heartbeat = _HEARTBEAT_S
    wanted.socket_timeout = min(wanted.socket_timeout or _CONNECT_S, _CONNECT_S)
    wanted.stack_timeout = min(wanted.stack_timeout or _CONNECT_S, _CONNECT_S)
    return wanted


class Link(Generic[S]):
    """Keeps a session (what ``open_session`` makes of a connection) open from the first call on."""

    def __init__(
        self,
        parameters: pika.URLParameters,
        open_session: Callable[[AsyncioConnection], Awaitable[S]],
    ) -> None:
        self._parameters = parameters
        self._open_session = open_session
        self._name = f"RabbitMQ at {parameters.host}:{parameters.port}"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._keeper: asyncio.Task[None]
        self._session: asyncio.Future[S]
        """Pending: being opened. An exception: the last attempt failed, the next one waits for its time."""

    def call(self, work: Callable[[S], Coroutine[Any, Any, T]], timeout_s: float = ANSWER_S) -> T:
        """Let ``work`` run on the link's thread with the open session. Raises FarmUnavailable."""
        self._start()
        answer = asyncio.run_coroutine_threadsafe(self._with_session(work), self._loop)
        try:
            return answer.result(timeout_s)
        except CancelledError as error:
            raise FarmUnavailable(f"{self._name}: the connection has been closed") from error
        except TROUBLE as error:
            if not answer.done():
                answer.cancel()
                raise FarmUnavailable(f"{self._name} does not answer within {timeout_s:g} s") from error
            raise FarmUnavailable(f"{self._name}: {reason_of(error)}") from error

    def post(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the link's thread, some time. Does nothing when there is no thread."""
        with self._lock:
            if self._thread is not None and not self._closed:
                self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        """End the thread after everything that was posted before. More than once is harmless."""
        with self._lock:
            ending = self._thread if not self._closed else None
            if ending is not None:
                self._loop.call_soon_threadsafe(self._keeper.cancel)
            self._closed = True
        if ending is not None:
            ending.join(2 * _CLOSE_S)

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise FarmUnavailable(f"{self._name}: the connection has been closed")
            if self._thread is None:
                started: ThreadFuture[None] = ThreadFuture()
                self._thread = threading.Thread(target=self._run, args=(started,), name="rabbitmq", daemon=True)
                self._thread.start()
                started.result()

    def _run(self, started: ThreadFuture[None]) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._session = self._loop.create_future()
            self._keeper = self._loop.create_task(self._keep())
            started.set_result(None)
            with suppress(asyncio.CancelledError):
                await self._keeper

        asyncio.run(main())

    async def _with_session(self, work: Callable[[S], Coroutine[Any, Any, T]]) -> T:
        return await work(await asyncio.shield(self._session))

    async def _keep(self) -> None:
        """Hold the session open until cancelled."""
        pause_s = _PAUSE_MIN_S
        while True:
            lost: asyncio.Future[BaseException] = self._loop.create_future()
            try:
                connection = await _connect(self._parameters, lost)
                try:
                    trouble = await self._hold(connection, lost)
                finally:
                    await _close(connection, lost)
                pause_s = _PAUSE_MIN_S
            except TROUBLE as error:
                await self._pause(error, pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            else:
                log.warning("%s: %s", self._name, reason_of(trouble))
                self._session = self._loop.create_future()
                await asyncio.sleep(_PAUSE_MIN_S)

    async def _hold(self, connection: AsyncioConnection, lost: asyncio.Future[BaseException]) -> BaseException:
        """Open a session, and hand it out until the connection is lost; return why it was."""
        session = await asyncio.wait_for(self._open_session(connection), ANSWER_S)
        try:
            log.info("connected to %s", self._name)
            self._session.set_result(session)
            return await asyncio.shield(lost)  # a cancelled future would pass for a lost connection
        finally:
            session.end()

    async def _pause(self, error: BaseException, pause_s: float) -> None:
        """Let callers know at once why there is no session, and wait before the next attempt."""
        trouble = FarmUnavailable(f"{self._name}: {reason_of(error)}")
        if pause_s == _PAUSE_MIN_S:
            log.warning("%s", trouble)
        self._session.set_exception(trouble)
        self._session.exception()  # seen, also when nobody asks
        await asyncio.sleep(pause_s)
        self._session = self._loop.create_future()


async def _connect(parameters: pika.URLParameters, lost: asyncio.Future[BaseException]) -> AsyncioConnection:
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    connection = AsyncioConnection(
        parameters,
        on_open_callback=lambda _: settle(opened, None),
        on_open_error_callback=lambda _, error: fail(opened, error),
        on_close_callback=lambda _, error: settle(lost, error),
    )
    try:
        await opened
    except asyncio.CancelledError:
        connection.close()
        raise
    return connection


async def _close(connection: AsyncioConnection, lost: asyncio.Future[BaseException]) -> None:
    if lost.done():
        return
    if not connection.is_closing:
        connection.close()
    await asyncio.wait([lost], timeout=_CLOSE_S)


def reason_of(error: BaseException) -> str:
    """Return in one line, and in our own words where pika's are none, what is wrong."""
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, AMQPConnectionWorkflowFailed):
        return reason_of(error.exceptions[-1])
    if isinstance(error, AMQPConnectorPhaseErrorBase):
        return reason_of(error.exception)
    if error.args and isinstance(error.args[0], BaseException):
        return reason_of(error.args[0])
    if isinstance(error, ConnectionClosedByBroker | ChannelClosedByBroker):
        return str(error.reply_text)
    text = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join((text or type(error).__name__).split())
