"""Admitting many at once: everything, once, and acknowledged after it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.errors import FarmUnavailable
from renderfarm.services import admission, tasks
from tests.unit.services.story import Story


def test_many_tasks_in_few_transactions(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.lead()
    story.worker()
    asset = story.asset()
    submitted = [story.submit(asset, frames="1-4") for _ in range(12)]
    assert admission.relay_outbox(story.farm, story.epoch) == 12
    # A message that comes twice is one task's still.
    story.farm.queue.publish([("task", submitted[0].id), ("task", submitted[11].id), ("task", "nobody's")])
    # 12 units, and a transaction ends: three tasks.
    monkeypatch.setattr(admission, "_UNITS_AT_ONCE", 12)
    writes = counted_writes(story)
    assert admission.admit_queued(story.farm, story.epoch) == 15
    assert len(writes) == 5
    for task in submitted:
        assert [unit.frames for unit in story.units(task.id)] == [(1,), (3,), (4,), (2,)]
        assert story.task(task.id).units_total == 4
    assert story.farm.queue.take(10) == []


def counted_writes(story: Story) -> list[str]:
    """Note each transaction that may change something."""
    begun: list[str] = []
    write = story.farm.database.write

    class Counting:
        def write(self) -> object:
            begun.append("write")
            return write()

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    inner = story.farm.database
    story.farm = replace(story.farm, database=Counting())  # type: ignore[arg-type]
    return begun


def test_paused_tasks_are_held_among_others(story: Story) -> None:
    story.lead()
    story.worker()
    asset = story.asset()
    paused, queued = story.submit(asset, frames="1"), story.submit(asset, frames="1")
    tasks.pause_task(story.farm, LOCAL_OWNER, paused.id)
    story.admit()
    leases = story.place("w1", "w2")
    (unit,) = story.units(queued.id)
    assert [lease.unit_id for lease in leases] == [unit.id]
    assert len(story.units(paused.id)) == 1


def test_what_is_of_no_topic_is_buried_and_holds_up_nobody(story: Story) -> None:
    story.lead()
    story.worker()
    story.farm.queue.publish([("nonsense", "a")])
    task = story.submit(frames="1")
    story.admit()
    assert len(story.units(task.id)) == 1
    (dead,) = story.farm.queue.dead(10)
    assert (dead.key, dead.reason) == ("a", "no such topic: nonsense")


def test_nothing_is_acknowledged_before_it_is_written(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.lead()
    story.worker()
    task = story.submit(frames="1")
    admission.relay_outbox(story.farm, story.epoch)
    queue = story.farm.queue

    def unavailable(_: Sequence[int]) -> None:
        raise FarmUnavailable("the queue is away")

    seen: list[int] = []

    def watching(acknowledge: Callable[[Sequence[int]], None]) -> Callable[[Sequence[int]], None]:
        def acknowledged(tags: Sequence[int]) -> None:
            seen.append(len(story.units(task.id)))
            acknowledge(tags)

        return acknowledged

    # Written > not acknowledged > delivered again > nothing left to do > acknowledged.
    with monkeypatch.context() as away:
        away.setattr(queue, "acknowledge", watching(unavailable))
        with pytest.raises(FarmUnavailable):
            admission.admit_queued(story.farm, story.epoch)
    monkeypatch.setattr(queue, "acknowledge", watching(queue.acknowledge))
    assert admission.admit_queued(story.farm, story.epoch) == 1
    assert seen == [1, 1]
    assert queue.take(10) == []


def test_the_outbox_is_emptied_in_one_go(story: Story) -> None:
    story.lead()
    with story.farm.database.write() as tx:
        for number in range(450):
            tx.outbox.add("task", str(number), 0.0)
    assert admission.relay_outbox(story.farm, story.epoch) == 450
    assert [delivery.key for delivery in story.farm.queue.take(450)] == [str(number) for number in range(450)]
