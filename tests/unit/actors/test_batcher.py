"""Questions that are answered together: none lost, none twice, and no one's trouble another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.batcher import Batcher
from renderfarm.errors import FarmUnavailable


class Oracle:
    """Doubles numbers, in calls that wait until they are let through."""

    def __init__(self, wrong: dict[int, Exception] | None = None) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._wrong = wrong or {}

    async def answer(self, questions: Sequence[int]) -> list[int]:
        self.calls.append(list(questions))
        await self.gate.wait()
        for question in questions:
            if question in self._wrong:
                raise self._wrong[question]
        return [2 * question for question in questions]


def test_what_comes_while_an_answer_is_awaited_shares_the_next_call() -> None:
    async def scenario() -> None:
        oracle = Oracle()
        batcher = Batcher(oracle.answer)
        oracle.gate.clear()
        first = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [asyncio.create_task(batcher.ask(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        oracle.gate.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
        assert oracle.calls == [[1], [2, 3, 4]]
        assert await batcher.ask(5) == 10

    asyncio.run(scenario())


def test_a_call_has_its_limit() -> None:
    async def scenario() -> None:
        oracle = Oracle()
        batcher = Batcher(oracle.answer)
        answers = await asyncio.gather(*(batcher.ask(number) for number in range(450)))
        assert answers == [2 * number for number in range(450)]
        assert [len(call) for call in oracle.calls] == [200, 200, 50]

    asyncio.run(scenario())


def test_a_mistake_in_one_fails_that_one() -> None:
    async def scenario() -> None:
        oracle = Oracle({2: ZeroDivisionError("oops")})
        batcher = Batcher(oracle.answer)
        answers = await asyncio.gather(*(batcher.ask(number) for number in (1, 2, 3)), return_exceptions=True)
        assert answers[0] == 2
        assert isinstance(answers[1], ZeroDivisionError)
        assert answers[2] == 6

    asyncio.run(scenario())


def test_a_farm_that_is_away_is_told_to_all_at_once() -> None:
    async def scenario() -> None:
        oracle = Oracle({1: FarmUnavailable("away")})
        batcher = Batcher(oracle.answer)
        answers = await asyncio.gather(*(batcher.ask(number) for number in (1, 2)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["away", "away"]
        assert len(oracle.calls) == 1
        assert await batcher.ask(3) == 6

    asyncio.run(scenario())


def test_who_goes_away_is_missed_by_nobody() -> None:
    async def scenario() -> None:
        oracle = Oracle()
        batcher = Batcher(oracle.answer)
        oracle.gate.clear()
        gone, stays = asyncio.create_task(batcher.ask(1)), asyncio.create_task(batcher.ask(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        oracle.gate.set()
        assert await stays == 4
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(scenario())
