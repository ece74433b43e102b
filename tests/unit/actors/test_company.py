"""Frames that wait for each other, so that they are committed together."""

from __future__ import annotations

import asyncio

import pytest

import actors.company
from actors.company import Company


def waiting(company: Company, count: int) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(company.wait(0.1, is_more_to_come=True)) for _ in range(count)]


def test_short_frames_go_on_together_with_the_last_one() -> None:
    async def scenario() -> None:
        company = Company()
        frames = waiting(company, 3)
        await asyncio.sleep(0)
        assert not any(frame.done() for frame in frames)
        assert await company.wait(0.1, is_more_to_come=False)
        await asyncio.wait_for(asyncio.gather(*frames), 1)

    asyncio.run(scenario())


def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(actors.company, "WAIT_MAX_S", 0.01)
        company = Company()
        await asyncio.wait_for(asyncio.gather(*waiting(company, 2)), 5)
        await asyncio.wait_for(asyncio.gather(*waiting(company, 2)), 5)  # the next ones, too

    asyncio.run(scenario())


def test_a_long_frame_does_not_wait_and_takes_all_others_along() -> None:
    async def scenario() -> None:
        company = Company()
        frames = waiting(company, 2)
        await asyncio.sleep(0)
        assert not await company.wait(3.0, is_more_to_come=True)
        assert await asyncio.wait_for(asyncio.gather(*frames), 1) == [True, True]

    asyncio.run(scenario())


def test_one_that_is_cancelled_keeps_nobody_from_going_on() -> None:
    async def scenario() -> None:
        company = Company()
        one, other = waiting(company, 2)
        await asyncio.sleep(0)
        one.cancel()
        await company.wait(0.1, is_more_to_come=False)
        await asyncio.wait_for(other, 1)
        assert one.cancelled()

    asyncio.run(scenario())
