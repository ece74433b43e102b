"""A whole farm on this machine: Ray, the scheduler, the workers and the HTTP API, up and down as one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import ray
from ray import serve

from actors.blenders import find_blenders
from actors.factory import start_scheduler
from actors.handles import NAMESPACE, RayCompute
from renderfarm.errors import FarmUnavailable
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, prepare_farm
from serve_app.deployment import APPLICATION, application

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 20.0
_EXIT_TIMEOUT_S = 3.0
_READY_TIMEOUT_S = 90.0
_LOOK_EVERY_S = 0.1
_FOLDER_PREFIX = "renderfarm-ray-"
#: A farm that has only just made its folder may not have locked it yet.
_LOCKED_WITHIN_S = 60.0
_OWNER_FILE = "owner.lock"
#: For a farm whose port does not matter.
_PORTS = range(20_000, 32_000)


class StoppedAtStart(Exception):
    """The farm was told to stop before it was ready."""


class EmbeddedFarm:
    """Everything that ``with`` starts, its end takes down: no process and no temporary file is left behind.

    Raises:
        FarmUnavailable: no Blender, the data folder or the port is in use, or Ray does not start.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        """``stop``, once set, ends a start at its next step with StoppedAtStart."""
        self._stop = stop
        port = settings.port or _free_port(settings.host)
        self._settings = settings.model_copy(update={"port": port})
        self._stack = ExitStack()
        self.url = f"http://{settings.host}:{port}"
        self.pid = os.getpid()

    def __enter__(self) -> EmbeddedFarm:
        settings = self._settings
        with self._stack:
            _check_port(settings.host, settings.port)
            find_blenders(settings.blender)
            self._stack.enter_context(_only_one(settings.data))
            close_farm(prepare_farm(settings, RayCompute()))
            self._go_on()
            self._stack.enter_context(_running_ray(settings))
            self._go_on()
            scheduler = self._stack.enter_context(_running_scheduler(settings))
            self._stack.enter_context(_running_api(settings))
            self._go_on()
            _wait_until_ready(scheduler)
            self._stack = self._stack.pop_all()
        return self

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedAtStart

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Leave word for the command line while the farm runs."""
        word = self._settings.runtime / "farm.json"
        word.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"url": self.url, "pid": self.pid, "data": str(self._settings.data)})
        partial = word.with_suffix(f".{self.pid}")
        partial.write_text(text)
        partial.replace(word)
        try:
            yield
        finally:
            if word.exists() and word.read_text() == text:
                word.unlink()

    def unannounced(self) -> AbstractContextManager[None]:
        """Run for whoever was told the URL only."""
        return contextlib.nullcontext()


@contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Two farms must not share a data folder; the lock goes with the process, however it ends."""
    data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(data / "farm.lock"))
        except BlockingIOError as error:
            raise FarmUnavailable(f"another farm runs on {data}") from error
        yield


@contextmanager
def _running_ray(settings: Settings) -> Iterator[None]:
    """Run a Ray of our own in a short temporary folder: its socket paths must stay below 107 bytes."""
    before = _children()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with _temporary_folder() as folder:
        try:
            _start_ray(settings, folder)
            for number, handler in handlers.items():  # Ray puts its own in their place, which end the process at once
                signal.signal(number, handler)
            yield
        finally:
            ray.shutdown()
            _wait_for_exit(_children() - before)


def _start_ray(settings: Settings, folder: str) -> None:
    _let_others_finish()
    ray.init(
        address="local",
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=settings.object_store_memory_bytes,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )
    _end_what_serves_nobody()


def _let_others_finish() -> None:
    """Let this thread, and all processes that are started from it, interrupt nobody when they wake up.

    They wait until whoever has the core has had its time (SCHED_BATCH, sched(7)), mostly a Blender that renders: see
    ``blender_runtime.process``. While all cores render, an answer of the API takes 44 ms instead of 11 (measured).
    """
    if not hasattr(os, "SCHED_BATCH"):  # Linux only
        return
    # A container may forbid it, and a policy that somebody has chosen stays: the farm runs without it as well.
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _end_what_serves_nobody() -> None:
    """End Ray's autoscaler, the reporter of its usage, and what reads logs for drivers that show workers' output.

    ``ray.init`` starts them whatever it is told, and a local farm has nothing for them to do. They took 0.9 % of a
    core and 167 MiB (Ray 2.60, proportional set size). Ray's own methods keep its books, so that it does not miss them.
    """
    node = ray._private.worker.global_worker.node
    assert node is not None
    for kill in (node.kill_monitor, node.kill_log_monitor, node.kill_dashboard):
        kill(check_alive=False)


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Make a folder for Ray, and remove those of farms that were killed before they could."""
    for owner in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*/{_OWNER_FILE}"):
        if owner.stat().st_mtime < time.time() - _LOCKED_WITHIN_S:
            with contextlib.suppress(OSError), _locked(owner):
                shutil.rmtree(owner.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    with _locked(folder / _OWNER_FILE):
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, which goes with the process however it ends. Raises BlockingIOError, if another holds it."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def _running_scheduler(settings: Settings) -> Iterator[Any]:
    scheduler = start_scheduler(settings)
    try:
        yield scheduler
    finally:
        try:
            ray.get(scheduler.stop.remote(), timeout=_STOP_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            # Ray is taken down next, and every worker and Blender with it.
            log.warning("the scheduler did not stop by itself: %s", error)


@contextmanager
def _running_api(settings: Settings) -> Iterator[None]:
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": settings.host, "port": settings.port},
        logging_config={"enable_access_log": False},
    )
    try:
        serve.run(application(settings), name=APPLICATION, route_prefix="/")
        yield
    finally:
        serve.shutdown()


def _wait_until_ready(scheduler: Any) -> None:
    """Wait until the scheduler is in charge and every worker has said what it is."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while (health := ray.get(scheduler.health.remote(), timeout=_READY_TIMEOUT_S)) != "ok":
        if time.monotonic() > deadline:
            raise FarmUnavailable(f"the farm does not get ready: {health}")
        time.sleep(_LOOK_EVERY_S)


def _free_port(host: str) -> int:
    """Return a port that nobody has.

    Not one of those that systems give to whoever asks for any (32768 and up): Ray's own processes ask for dozens while
    the farm starts, and took it now and then before the API did.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise FarmUnavailable(f"no port of {host} from {_PORTS[0]} to {_PORTS[-1]} is free; give one with --port")


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise FarmUnavailable(f"port {port} is in use; give another with --port") from error


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _wait_for_exit(processes: set[Any]) -> None:
    """Wait for Ray's processes, and end those that do not by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=_EXIT_TIMEOUT_S)
    for process in alive:
        log.warning("process %s (%s) outlived Ray and is killed", process.pid, process.name())
        process.kill()
    psutil.wait_procs(alive, timeout=_EXIT_TIMEOUT_S)
