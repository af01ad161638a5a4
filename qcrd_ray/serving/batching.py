"""Answer together what waits together: a batch is formed when the one before it is answered.

Ray Serve's `serve.batch` forms its batches by time, also while one is being answered. A student
that takes 30 ms for a batch and gets a request every 10 ms then answers each by itself, one behind
the other, however many wait (`_process_batches` in ray/serve/batching.py, Ray 2.60).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

TOLD_AT_ONCE = 8

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Calls ``answer`` with up to ``max_size`` of the items that wait, one batch after the other.

    Args:
        answer: answers for items, as many and in their order; what it raises, all of them get.
        wait_s: how long a batch that is not full waits for more.
    """

    def __init__(
        self,
        answer: Callable[[list[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_size: int,
        wait_s: float = 0.0,
    ) -> None:
        self._answer, self._max_size, self._wait_s = answer, max_size, wait_s
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """The answer for ``item``. A caller that is cancelled before its batch takes no place."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answered))
        if self._work is None:
            # of no caller: the first one's context would be that of everybody's batches
            self._work = asyncio.create_task(self._answer_all(), context=Context())
        return await answered

    async def _answer_all(self) -> None:
        while self._waiting:
            # also 0: the items of one request come one after the other
            await asyncio.sleep(self._wait_s if len(self._waiting) < self._max_size else 0)
            batch = []
            while self._waiting and len(batch) < self._max_size:
                item, answered = self._waiting.popleft()
                if not answered.done():
                    batch.append((item, answered))
            if batch:
                await self._answer_batch(batch)
        self._work = None

    async def _answer_batch(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer([item for item, _ in batch])
            assert len(answers) == len(batch), (len(answers), len(batch))
        except Exception as error:
            for _, answered in batch:
                if not answered.done():
                    answered.set_exception(error)
            return
        for number, ((_, answered), answer) in enumerate(zip(batch, answers, strict=True)):
            # each wakes a handler with a millisecond of work: all at once would hold up a probe
            if number and number % TOLD_AT_ONCE == 0:
                await asyncio.sleep(0)
            if not answered.done():
                answered.set_result(answer)
