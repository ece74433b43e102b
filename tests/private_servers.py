"""Servers of a test's own, each with its data in a temporary folder: they may be stopped, killed and started again."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

_READY_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.05
_STOP_TIMEOUT_S = 30.0
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/lib/rabbitmq/bin"))


def free_port() -> int:
    """Return a port of this machine that nobody has.

    Not one of those that Linux gives to outgoing connections (32768 and up): a server that is killed and started again
    would find its port taken by one of them now and then.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def program(name: str, package: str) -> str:
    """Return the path of a server's program; as root on Debian, install its package if it is missing."""
    found = shutil.which(name, path=_PATH)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", package]):
            subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL)
        found = shutil.which(name, path=_PATH)
    if found is None:
        raise LookupError(f"tests need {name}: install it (Debian, Ubuntu: sudo apt install {package})")
    return found


def mysql_answers(url: str) -> bool:
    """Tell whether a MySQL or MariaDB lets us in."""
    try:
        create_engine(make_url(url).set(drivername="mysql+pymysql"), poolclass=NullPool).connect().close()
    except SQLAlchemyError:
        return False
    return True


def redis_answers(url: str) -> bool:
    """Tell whether a Redis lets us in."""
    try:
        with Redis.from_url(url, socket_timeout=2.0) as client:
            client.ping()
    except RedisError:
        return False
    return True


class PrivateServer(ABC):
    """One process, on a free port, with a folder that goes with it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="renderfarm-server-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What a farm or a test is to be told."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's command; what it needs is made here, the first time."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Tell whether it answers."""

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it, and return when it answers."""
        command = self._command()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(), process_group=0
            )
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise TimeoutError(f"{command[0]} does not get ready: {words}")
            time.sleep(_LOOK_EVERY_S)
        return self

    def stop(self) -> None:
        """End it in good order; its data stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill it at once; its data stays as it is at this moment."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)

    def restart(self) -> None:
        """Kill it, and start it again on the same data."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder)


class PrivateMariaDb(PrivateServer):
    """A MariaDB whose root has no password."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options

    @property
    def url(self) -> str:
        """Without a database: a path is to follow."""
        return f"mysql://root@127.0.0.1:{self.port}/"

    @cached_property
    def _user(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def _command(self) -> list[str]:
        server = program("mariadbd", "mariadb-server")
        data = self.folder / "data"
        if not data.exists():
            how = ["--auth-root-authentication-method=normal", "--skip-name-resolve", "--skip-test-db"]
            made = subprocess.run(
                [
                    program("mariadb-install-db", "mariadb-server"),
                    "--no-defaults",
                    f"--datadir={data}",
                    *self._user,
                    *how,
                ],
                capture_output=True,
                check=False,
            )
            if made.returncode != 0:
                raise OSError(made.stderr.decode(errors="replace")[-2000:])
        return [
            server,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={self.folder / 'socket'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-log-file-size=32M",
            *self._user,
            *self._options,
        ]

    def _is_ready(self) -> bool:
        return mysql_answers(self.url)


class PrivateRedis(PrivateServer):
    """A Redis without a password, which keeps nothing on disk: restarted, it has forgotten everything."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/"

    def _command(self) -> list[str]:
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [program("redis-server", "redis-server"), *place, "--save", "", "--appendonly", "no"]

    def _is_ready(self) -> bool:
        return redis_answers(self.url)
