"""Questions that come while the last ones are being answered, answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from renderfarm.errors import RenderfarmError

Question = TypeVar("Question")
Answer = TypeVar("Answer")

#: Enough to share a transaction's cost, and few enough that it holds its locks for milliseconds.
_BATCH_MAX = 200
#: Under load the next call waits this long for company: a transaction costs as much as thirty of its rows.
_LINGER_S = 0.1


class Batcher(Generic[Question, Answer]):
    """A group commit: alone, a question is answered at once; under load, all that come soon share one transaction."""

    def __init__(self, answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]) -> None:
        """``answer`` gets questions and returns an answer for each; one call at a time."""
        self._answer = answer
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._answering: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Return the answer, or raise what ``answer`` raises."""
        return await self.submit(question)

    def submit(self, question: Question) -> asyncio.Future[Answer]:
        """Ask, and wait for the answer later."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())
        return future

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH_MAX], self._waiting[_BATCH_MAX:]
                await self._answer_batch(batch)
                if len(batch) > 1:
                    await asyncio.sleep(_LINGER_S)
        finally:
            self._answering = None

    async def _answer_batch(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again where the question was asked
            await self._tell(batch, error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _tell(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]], error: Exception) -> None:
        if len(batch) > 1 and not isinstance(error, RenderfarmError):
            # A mistake of ours in one of them must not fail the others.
            for one in batch:
                await self._answer_batch([one])
            return
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
