"""A worker on a real farm, whose Blender is a stand-in and whose database fails when the test says so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from actors.blender_session import SessionCancelled, SessionFailed
from actors.blenders import Blender
from actors.messages import Outcome
from actors.worker import Worker
from blender_runtime.protocol import FrameDone, Opened, Progress, Render
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.leases import Lease
from renderfarm.domain.models import AssetFile, Task, Unit
from renderfarm.errors import FarmUnavailable
from renderfarm.ports import Database, Farm, Transaction
from renderfarm.wiring import close_farm
from tests.unit.services.story import BLENDER, Clock, Story, make_farm


class MoodyDatabase:
    """Raises what it is told to, so many times, before it works again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.troubles: list[Exception] = []

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        if self.troubles:
            raise self.troubles.pop()
        with self._database.write() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with self._database.read() as tx:
            yield tx

    def watch(self) -> Callable[[], bool]:
        return self._database.watch()

    def check(self) -> None:
        self._database.check()

    def close(self) -> None:
        self._database.close()


@dataclass
class Gates:
    """Where the stand-in waits until the test lets it go on."""

    start: asyncio.Event = field(default_factory=asyncio.Event)
    frame: asyncio.Event = field(default_factory=asyncio.Event)
    after_last_frame: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for gate in (self.start, self.frame, self.after_last_frame):
            gate.set()


class FakeSession:
    """Renders at once; like the real one, it is killed by whatever else than a reply ends a request."""

    all: list[FakeSession]
    gates: Gates
    refusal: Exception | None
    crashes_at: set[int]
    fails_at: dict[int, Failure]
    """Frames that Blender says it cannot render, and lives on."""
    file_name: str | None
    """What a frame's file is called; None: as usual."""
    picture: bytes
    """What a frame looks like,"""
    fresh_picture: bytes
    """and one that knows nothing of those before."""
    odd_pictures: dict[int, bytes]
    """What some look like when they are rendered for the first time."""

    def __init__(self) -> None:
        self.alive = True
        self.wants_restart = False
        self.frames: list[int] = []
        self.pid = psutil.Process().pid
        self.open_scene: Path | None = None
        self.peak_memory_bytes = 1
        self.ahead: Render | None = None
        self.told: list[str] = []
        """Which requests it was told of, and how."""
        self._is_rendering = False
        self.all.append(self)

    @classmethod
    async def start(cls, _blender: Blender, **_options: object) -> FakeSession:
        if cls.refusal is not None:
            raise cls.refusal
        session = cls()
        try:
            await cls.gates.start.wait()
        except BaseException:
            session.kill()
            raise
        return session

    async def inspect(self, scene_path: Path, *, log_path: Path, open_timeout_s: float) -> SceneFacts:
        raise NotImplementedError

    async def render(
        self,
        request: Render,
        *,
        on_begin: Callable[[Opened], None],
        on_progress: Callable[[Progress], None],
        on_frame: Callable[[FrameDone], Awaitable[None]],
        **_options: object,
    ) -> None:
        assert self.ahead in (None, request)
        self.told.append(f"{'sent ahead' if self.ahead else 'asked'}: {request.frames}")
        self.ahead, self._is_rendering = None, True
        reused = self.open_scene == Path(request.scene_path) and not request.fresh
        self.open_scene, fresh = Path(request.scene_path), request.fresh
        _write(Path(request.log_path), "Blender said something")
        on_begin(Opened(scene_path=request.scene_path, open_seconds=0.5, reused=reused))
        try:
            for frame in request.frames:
                if not self.frames:  # all others are short frames that follow one
                    on_progress(Progress(frame=frame, fraction=0.0, note="Starting", memory_bytes=1))
                await self.gates.frame.wait()
                if frame in self.crashes_at:
                    raise SessionFailed(Failure(kind=FailureKind.CRASH, message="Blender has gone"))
                if frame in self.fails_at:
                    raise SessionFailed(self.fails_at[frame])
                picture = Path(request.output_dir) / (self.file_name or f"{frame:04d}.png")
                picture.parent.mkdir(parents=True, exist_ok=True)
                usual = self.fresh_picture if fresh else self.picture
                picture.write_bytes(self.odd_pictures.pop(frame, usual))
                warm = bool(self.frames) and not fresh
                self.frames.append(frame)
                done = FrameDone(
                    frame=frame, files=(str(picture),), render_seconds=1.0, warm=warm, devices=(f"FAKE: {frame % 2}",)
                )
                await on_frame(done)
            await self.gates.after_last_frame.wait()
            if not self.alive:
                raise SessionCancelled("the session was killed on request")
        except BaseException as error:
            if not (isinstance(error, SessionFailed) and error.failure in self.fails_at.values()):
                self.kill()
            raise
        finally:
            self._is_rendering = False

    @property
    def takes_ahead(self) -> bool:
        return self._is_rendering and self.alive and self.ahead is None

    def send_ahead(self, request: Render) -> None:
        self.ahead = request

    def withdraw(self, request: Render) -> None:
        if self.ahead is request:
            self.ahead = None
            self.told.append(f"withdrawn: {request.frames}")

    def kill(self) -> None:
        self.alive = False
        self.open_scene = None

    async def close(self) -> None:
        self.kill()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


class Bench:
    """One worker ``w1`` and what happens to its attempts."""

    def __init__(self, folder: Path) -> None:
        clock = Clock()
        farm = make_farm(folder / "data", clock, itertools.count(1))
        self.database = MoodyDatabase(farm.database)
        settings = farm.settings.model_copy(update={"lease_s": 0.3, "heartbeat_s": 0.02})
        self.farm: Farm = replace(farm, database=self.database, settings=settings)
        self.story = Story(self.farm, clock)
        self.worker = Worker(self.farm, "w1", "127.0.0.1", threads=1)
        self._scene = folder / "shot.blend"
        self._scene.write_text("0123456789")

    def task(self, frames: str = "1", **settings: Any) -> tuple[Task, Lease]:
        """Submit a task whose scene is in the store, and place its first unit."""
        file = AssetFile(path="shot.blend", digest=self.farm.objects.put(self._scene), size_bytes=10)
        asset = replace(self.story.asset(), id=self.farm.new_id(), name="stored", files=(file,))
        with self.farm.database.write() as tx:
            tx.assets.add(asset)
        task = self.story.admitted(asset, frames=frames, **settings)
        return task, self.story.place()[0]

    def unit(self, task: Task) -> Unit:
        return self.story.units(task.id)[0]

    def trouble(self, times: int, error: Exception | None = None) -> None:
        """Let the next transactions that write fail."""
        self.database.troubles = [error or FarmUnavailable("the database is locked")] * times

    def close(self) -> None:
        close_farm(self.farm)


def living() -> list[FakeSession]:
    return [session for session in FakeSession.all if session.alive]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def execute(worker: Worker, lease: Lease) -> Outcome:
    [outcome] = await worker.execute([lease])
    return outcome


def executing(worker: Worker, lease: Lease) -> asyncio.Task[Outcome]:
    return asyncio.create_task(execute(worker, lease))


BLENDERS = (Blender(version=BLENDER, argv_prefix=("blender",)),)
