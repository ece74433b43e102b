"""The farm beside the command line: finding one that runs, and running one as a child process."""

from __future__ import annotations

import fcntl
import json
import math
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from renderfarm.cli.console import say
from renderfarm.client import FarmClient
from renderfarm.errors import FarmUnavailable
from renderfarm.settings import Settings

#: From starting Python to a ready farm: Ray and Serve take 10 s on two cores, and much longer on a busy machine.
START_TIMEOUT_S = 180.0
#: A farm that stops waits for its Blenders and for Ray.
STOP_TIMEOUT_S = 60.0
_READER_TIMEOUT_S = 5.0
_LAST_MOMENT_S = 2.0
#: Nobody presses a key twice in that time: a program that signals a process and its group does (``timeout -s INT``).
_ONE_WISH_S = 0.5
_FOLDER_PREFIX = "render-"
#: What a killed command line or a broken farm has left may be looked at for so long.
_LEFTOVER_S = 24 * 3600.0
_LOG_LINES_SHOWN = 20


def announced_url(settings: Settings) -> str | None:
    """Return the URL of the farm that runs on this machine, or None."""
    try:
        url = json.loads((settings.runtime / "farm.json").read_text())["url"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FarmUnavailable(f"cannot read {settings.runtime / 'farm.json'}: {error}") from error
    # A farm that was killed leaves its address behind.
    return url if isinstance(url, str) and _answers(url) else None


def find_farm(settings: Settings) -> str | None:
    """Return the URL of the farm to use, or None if none runs.

    Raises:
        FarmUnavailable: ``RENDERFARM_URL`` names a farm, and it does not answer.
    """
    if settings.url is None:
        return announced_url(settings)
    if not _answers(settings.url):
        raise FarmUnavailable(f"no farm answers at {settings.url} (RENDERFARM_URL)")
    return settings.url


def require_farm(settings: Settings) -> str:
    """Return the URL of the farm to use.

    Raises:
        FarmUnavailable: none runs.
    """
    url = find_farm(settings)
    if url is None:
        raise FarmUnavailable("no farm runs on this machine; start one with: renderfarm up")
    return url


def _answers(url: str) -> bool:
    with FarmClient(url, timeout_s=5.0) as client:
        return client.is_alive()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a termination signal do what Ctrl-C does, so that no farm is left behind.

    Signals that come together are one: the second must not break off what the first has set going.
    """
    came_at = -math.inf

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal came_at
        before, came_at = came_at, time.monotonic()
        if came_at - before > _ONE_WISH_S:
            raise KeyboardInterrupt

    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put an interruption off to the end of the block: what that starts must be known to whoever will stop it."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


class FarmProcess:
    """``python -m serve_app`` as a child, which ends with its parent whatever ends that: its stdin is our pipe."""

    def __init__(self, options: Sequence[str], stderr: Path) -> None:
        self._stderr = stderr
        with stderr.open("wb") as log:
            # A process group of its own: Ctrl-C is for the command line, which then stops the farm in good order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serve_app", "--stop-on-eof", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Read to the end: whoever prints into a full pipe stands still.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                if line.startswith(b'{"event"'):
                    self._lines.put(line)
        self._lines.put(None)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Return what the farm says when it is ready: ``url``, ``pid``, ``data``.

        Raises:
            FarmUnavailable: it failed or took too long; if it did not say why, its last words are shown.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self._show_last_words()
            raise FarmUnavailable(f"the farm was not ready within {timeout_s:.0f} s") from None
        if line is None:
            self._show_last_words()
            raise FarmUnavailable(f"the farm did not start: it {self._ending()}")
        news: dict[str, Any] = json.loads(line)
        if news["event"] != "ready":
            raise FarmUnavailable(f"the farm did not start: {news['error']}")
        return news

    def _show_last_words(self) -> None:
        with self._stderr.open(errors="replace") as log:
            for line in deque(log, maxlen=_LOG_LINES_SHOWN):
                say(line.rstrip())

    def _ending(self) -> str:
        code = self._process.wait()
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def ends(self, timeout_s: float) -> bool:
        """Say whether it ends by itself within ``timeout_s``."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """End it in good order, and by force if that takes too long."""
        if self.is_running:
            self._process.terminate()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Its own children may hold its standard output for a moment longer.
        self._reader.join(_READER_TIMEOUT_S)


class EmbeddedFarm:
    """A farm for one command, in a folder of its own that goes with it."""

    def __init__(self, settings: Settings) -> None:
        settings.data.mkdir(parents=True, exist_ok=True)
        _sweep(settings.data)
        self._data = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=settings.data))
        self._stays = False
        self._process = FarmProcess(["--alone", "--data", str(self._data), "--port", "0"], self._data / "stderr.log")

    def start(self) -> str:
        """Return the URL once the farm is ready.

        Raises:
            FarmUnavailable: it did not start; its folder stays, for its logs.
        """
        try:
            return str(self._process.wait_ready()["url"])
        except FarmUnavailable as error:
            raise self.broken(str(error)) from error

    def broken(self, why: str) -> FarmUnavailable:
        """Return the error of a farm that does not start or ended by itself; its folder will stay."""
        self._stays = True
        return FarmUnavailable(f"{why} (its logs are in {self._data})")

    def keep_outputs(self) -> Path:
        """Leave its folder behind; return where in it the rendered files are."""
        self._stays = True
        return self._data / "objects" / "outputs"

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    def ends(self) -> bool:
        """Say whether it ended, once the connection to it broke: its sockets close a moment before it is gone."""
        return self._process.ends(_LAST_MOMENT_S)

    def __enter__(self) -> EmbeddedFarm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()
        if not self._stays:
            shutil.rmtree(self._data)


def _sweep(folder: Path) -> None:
    """Remove what former embedded farms have left in ``folder``, unless they still run."""
    for leftover in folder.glob(f"{_FOLDER_PREFIX}*"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_S and not _is_held(leftover / "farm.lock"):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_held(lock: Path) -> bool:
    """Tell whether a farm holds the lock of its folder."""
    try:
        with lock.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
