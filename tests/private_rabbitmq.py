"""A RabbitMQ of a test's own: a node that shares neither port, nor data, nor name server with the machine's."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pika
from pika.exceptions import AMQPError

from tests.private_servers import PrivateServer, free_port, program

_ANSWER_S = 5.0
# It logs an error for every look at a server that is still starting.
logging.getLogger("pika").setLevel(logging.CRITICAL)
_STOP_TIMEOUT_S = 30.0


class PrivateRabbitMq(PrivateServer):
    """One node with ``guest:guest``. Killed, it goes with every process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._names_port, self._distribution_port = free_port(), free_port()
        self._names: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_TIMEOUT_S)

    def close(self) -> None:
        super().close()
        if self._names is not None:
            self._names.kill()
            self._names.wait(_STOP_TIMEOUT_S)

    def _command(self) -> list[str]:
        server = self._program("rabbitmq-server")
        if self._names is None:
            # Erlang would start its name server as a daemon, which nobody would stop.
            epmd = [program("epmd", "erlang-base"), "-port", str(self._names_port), "-address", "127.0.0.1"]
            self._names = subprocess.Popen(
                epmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for name, text in {
                "rabbitmq.conf": f"listeners.tcp.local = 127.0.0.1:{self.port}\n",
                "environment": "",
                "plugins": "[].\n",
            }.items():
                (self.folder / name).write_text(text)
        return [server]

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return super()._environment() | {
            "HOME": str(folder),  # for the cookie
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),  # else it is left where the tests were started
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"private-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }

    def _is_ready(self) -> bool:
        return answers(self.url)

    @staticmethod
    def _program(name: str) -> str:
        """Return RabbitMQ's own script; Debian's in /usr/sbin changes to another user."""
        own = Path("/usr/lib/rabbitmq/bin", name)
        found = program(name, "rabbitmq-server")
        return str(own) if own.exists() else found


def answers(url: str) -> bool:
    """Tell whether a RabbitMQ lets us in."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = _ANSWER_S
    try:
        pika.BlockingConnection(parameters).close()
    except (AMQPError, OSError):
        return False
    return True


def delete_queues(url: str, *names: str) -> None:
    """Remove what a test has left in a RabbitMQ."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    for name in names:
        channel.queue_delete(name)
    connection.close()
