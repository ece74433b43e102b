"""Killed between any two steps: a submission that was answered is never lost, and no frame is done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.states import TaskState
from renderfarm.ports import Database, Farm, Queue, Transaction
from renderfarm.services import placement, tasks
from tests.unit.services.story import Clock, Story


class Killed(BaseException):
    """Nothing of the process runs any more; only what was committed is there."""


class Fuse:
    """Counts the steps of a process, and ends it at one of them."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


class MortalDatabase:
    """Dies before a transaction, before its commit, or right after it."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        self._database = database
        self._fuse = fuse

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._fuse.step()
        with self._database.write() as tx:
            yield tx
            self._fuse.step()
        self._fuse.step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class MortalQueue:
    """Dies before or after anything that it is asked to do."""

    def __init__(self, queue: Queue, fuse: Fuse) -> None:
        self._queue = queue
        self._fuse = fuse

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            self._fuse.step()
            answer = getattr(self._queue, name)(*arguments)
            self._fuse.step()
            return answer

        return step


def mortal(farm: Farm, fuse: Fuse) -> Farm:
    database, queue = MortalDatabase(farm.database, fuse), MortalQueue(farm.queue, fuse)
    return replace(farm, database=database, queue=queue)


def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(story: Story, clock: Clock) -> None:
    asset = story.asset()
    story.worker()
    steps = 0
    while True:
        answered: list[str] = []
        before = {task.id for task in _all_tasks(story)}
        doomed = Story(mortal(story.farm, Fuse(steps)), clock)
        try:
            _live(doomed, asset.id, answered)
        except Killed:
            steps += 1
        else:
            break
        _live_on(story, clock)
        accepted = {task.id for task in _all_tasks(story)} - before
        assert set(answered) <= accepted, f"killed at step {steps}"
        for task_id in accepted:
            assert story.task(task_id).state is TaskState.COMPLETED, f"killed at step {steps}"
            assert [output.name for output in story.outputs(task_id)] == ["0001.png", "0002.png"]
            committed = Counter(entry.new for entry in story.log(task_id) if entry.event == "frame.committed")
            assert committed == {"0001.png": 1, "0002.png": 1}
    assert steps > 25, "it dies nowhere"


def _live(story: Story, asset_id: str, answered: list[str]) -> None:
    """Submit a task and render it, with every step of the API, the scheduler and a worker."""
    task = tasks.submit_task(
        story.farm, LOCAL_OWNER, asset_id=asset_id, settings=RenderSettings(frames="1-2"), name=None, priority=50
    )
    answered.append(task.id)
    story.lead()
    story.worker()
    story.admit()
    story.run_all()


def _live_on(story: Story, clock: Clock) -> None:
    """Start again: what was taken and not acknowledged comes back, what was leased expires."""
    story.farm.queue.close()
    story.lead()
    story.worker()
    clock.pass_(60)
    placement.expire_leases(story.farm, story.epoch)
    clock.pass_(60)
    story.admit()
    story.run_all()


def _all_tasks(story: Story) -> list[Any]:
    from renderfarm.ports import TaskQuery

    with story.farm.database.read() as tx:
        return list(tx.tasks.page(TaskQuery(limit=1000)).items)
