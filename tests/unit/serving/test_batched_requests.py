"""Requests are answered together: which ones, in what order, and what an error does."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from itertools import pairwise

import pytest

from qcrd_ray.serving.batching import TOLD_AT_ONCE, Batcher

CALLER: ContextVar[str] = ContextVar("caller", default="nobody")


class Doubling:
    """Doubles numbers, each batch when it is let."""

    def __init__(self, *, held: bool = False):
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.go.wait()
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_what_comes_while_a_batch_is_answered_makes_the_next_one():
    """Bug guarded: `serve.batch` made a batch of each request that came meanwhile, so that a
    student of 23 million weights answered 22 a second of 32 callers, where it can answer 80.
    """

    async def run():
        double = Doubling(held=True)
        batcher = Batcher(double, max_size=32)
        calls = [asyncio.create_task(batcher(0))]
        await until(lambda: double.batches)
        for number in range(1, 9):  # one after the other, as requests come
            calls.append(asyncio.create_task(batcher(number)))
            await asyncio.sleep(0.001)
        double.go.set()
        assert await asyncio.gather(*calls) == [2 * number for number in range(9)]
        assert double.batches == [[0], list(range(1, 9))]

    asyncio.run(run())


def test_no_batch_is_larger_than_it_may_be_and_none_overtakes():
    async def run():
        double = Doubling()
        batcher = Batcher(double, max_size=4)
        assert await asyncio.gather(*map(batcher, range(10))) == [2 * n for n in range(10)]
        assert double.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]

    asyncio.run(run())


def test_an_error_reaches_its_batch_and_no_other():
    async def run():
        double = Doubling()
        batcher = Batcher(double, max_size=2)
        answers = await asyncio.gather(*map(batcher, [1, 13, 3, 4]), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["13", "13", "6", "8"]
        assert await batcher(5) == 10, "it goes on after an error"

    asyncio.run(run())


def test_too_few_answers_are_an_error_and_nobody_waits_for_ever():
    async def short(numbers):
        return numbers[1:]

    async def run():
        async with asyncio.timeout(10):
            with pytest.raises(AssertionError, match="0, 1"):
                await Batcher(short, max_size=4)(1)

    asyncio.run(run())


@pytest.mark.parametrize("started", [False, True])
def test_a_caller_that_leaves_costs_the_others_nothing(started):
    """Before its batch it takes no place in one; in a batch its answer is dropped."""

    async def run():
        double = Doubling(held=True)
        batcher = Batcher(double, max_size=3)
        first = asyncio.create_task(batcher(0))
        await until(lambda: double.batches)
        leaving, staying = (asyncio.create_task(batcher(number)) for number in (1, 2))
        await asyncio.sleep(0)
        left = first if started else leaving
        left.cancel()
        await asyncio.sleep(0)
        double.go.set()
        assert await staying == 4
        assert double.batches == ([[0], [1, 2]] if started else [[0], [2]])
        await asyncio.gather(first, leaving, return_exceptions=True)
        assert left.cancelled()

    asyncio.run(run())


def test_a_batch_that_is_not_full_waits_where_it_is_told_to():
    async def run():
        double = Doubling()
        batcher = Batcher(double, max_size=2, wait_s=0.2)
        early = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.01)
        assert not double.batches
        assert await asyncio.gather(early, batcher(2)) == [2, 4]
        assert double.batches == [[1, 2]]
        began = asyncio.get_running_loop().time()
        await asyncio.gather(batcher(3), batcher(4))  # full: it does not wait
        assert asyncio.get_running_loop().time() - began < 0.15

    asyncio.run(run())


def test_a_batch_runs_in_the_context_of_no_caller():
    """Ray Serve keeps the request in it: logs of everybody's batch would name the first caller's,
    and its cancelling would be theirs.
    """
    seen = []

    async def look(items):
        seen.append(CALLER.get())
        return items

    async def run():
        CALLER.set("the first")
        await Batcher(look, max_size=2)(1)

    asyncio.run(run())
    assert seen == ["nobody"]


def test_a_probe_gets_between_the_answers_of_a_batch():
    """Bug guarded: the handlers of 64 answers ran one after the other, and /healthz took 129 ms."""

    async def run():
        woken, seen = [], []
        batcher = Batcher(Doubling(), max_size=64)

        async def call(number: int) -> None:
            woken.append(await batcher(number))

        async def probe() -> None:
            while len(woken) < 64:
                await asyncio.sleep(0)
                seen.append(len(woken))

        await asyncio.gather(probe(), *map(call, range(100, 164)))
        assert woken == [2 * number for number in range(100, 164)]
        assert max(after - before for before, after in pairwise(seen)) <= TOLD_AT_ONCE

    asyncio.run(run())
