"""Ask the teacher: from questions to rationale sets, wave by wave.

A :class:`RationaleGenerator` keeps many requests in flight. Whatever happens to a request (it
fails, hangs or is refused), its questions come out as rows with an outcome and a reason. Nothing is
raised, so that no bad row takes others with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa

from qcrd_ray.data.records import Question, RationaleSet
from qcrd_ray.rationales.breaker import Breaker, GivenUp
from qcrd_ray.rationales.poll import Poll, Reply
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.tasks import build_task
from qcrd_ray.teacher import (
    Stopped,
    Teacher,
    TeacherAnswer,
    TeacherAway,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)

MAX_BACKOFF_S = 60.0

Counts = dict[str, Counter[str]]  # by split; what is of no split is under ""

log = logging.getLogger(__name__)


class RationaleGenerator:
    """A table of requests in, as many rationale sets out.

    While ``draining`` is set no further question is begun: what waits for its turn waits for ever,
    since the process is about to end, and what is in flight is still answered.
    """

    def __init__(self, recipe: Recipe, teacher: Teacher):
        self._recipe = recipe
        self._teacher = teacher
        self._task = build_task(recipe.task)
        self._counts: Counts = defaultdict(Counter)
        self._slots = asyncio.Semaphore(recipe.generation.requests_in_flight)
        self._breaker = Breaker(
            patience_s=60.0 * recipe.generation.retry_minutes,
            backoff_s=recipe.generation.backoff_s,
        )
        self.draining = False

    async def __call__(
        self,
        requests: pa.Table,
        keep: Callable[[Sequence[RationaleSet]], object] = len,
        *,
        split: str = "train",
    ) -> list[RationaleSet]:
        """Answer requests (REQUEST_SCHEMA) of ``split``; the sets come in the same order.

        ``keep`` takes the sets of each request as soon as it is answered.
        """
        rows = requests.to_pylist()
        size = self._recipe.generation.questions_per_request
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        answered = await asyncio.gather(*(self._answer(group, keep, split) for group in groups))
        return [each for group in answered for each in group]

    def take_counts(self) -> Counts:
        """What has been done since the last call of this method.

        These are, by split, rows, rows by outcome, tokens_in, tokens_out and retries; and of no
        split, how many requests were `sent` and came `back`.
        """
        counts, self._counts = self._counts, defaultdict(Counter)
        return dict(counts)

    async def _answer(
        self,
        rows: Sequence[dict[str, Any]],
        keep: Callable[[Sequence[RationaleSet]], object],
        split: str,
    ) -> list[RationaleSet]:
        """The rationale sets of the questions that share their requests.

        They keep their turn from the first wave to the last: as many questions are begun as may be
        in flight, and a kill costs no more. Those of a group that are not settled are asked on
        together, in the smallest of their waves.
        """
        polls = [self._begin(row) for row in rows]
        async with self._slots:
            while unsettled := [poll for poll in polls if poll.wanted]:
                samples = min(poll.wanted for poll in unsettled)
                replies = await self._ask([poll.request(samples) for poll in unsettled])
                for poll, reply in zip(unsettled, replies, strict=True):
                    poll.take(reply, samples)
        sets = [poll.rationale_set() for poll in polls]
        keep(sets)
        self._count(self._counts[split], sets, polls)
        return sets

    def _begin(self, row: dict[str, Any]) -> Poll:
        question = Question.from_row(row)
        prompt = self._teacher.prompt(self._task, question)
        return Poll(row["id"], question, prompt, recipe=self._recipe, task=self._task)

    async def _ask(self, requests: Sequence[TeacherRequest]) -> list[Reply]:
        """Ask until there is an answer or the attempts are used up, waiting longer each time.

        A try that finds the teacher away is no attempt: an outage is waited through by time.
        """
        settings = self._recipe.generation
        tries = attempts = 0
        answered: int | None = None  # requests of all askers, when this one last failed
        suspect = False  # others were answered between two failures of this one
        while True:
            others = answered is not None and self._breaker.answers > answered
            suspect = suspect or others
            try:
                answers = await self._try(requests, suspect)
                return [Reply(answer, tries + 1) for answer in answers]
            except TeacherRefusal as refusal:
                if len(requests) == 1:
                    return [Reply(None, tries + 1, reason=str(refusal), refused=True)]
                # one question must not spoil the others' request
                return [reply for request in requests for reply in await self._ask([request])]
            except GivenUp as given_up:
                return [Reply(None, tries, reason=str(given_up))] * len(requests)
            except Stopped as stopped:
                return [Reply(None, 0, reason=str(stopped))] * len(requests)
            except TeacherError as error:
                tries += 1
                attempts += others or not self._breaker.away
                answered = self._breaker.answers
                log.warning(
                    "try %d at %s, %d of %d attempts: %s",
                    tries,
                    requests[0].question.id,
                    attempts,
                    settings.attempts,
                    error,
                )
                if attempts >= settings.attempts:
                    return [Reply(None, tries, reason=str(error))] * len(requests)
                async with self._turn_given_up():
                    await asyncio.sleep(retry_delay_s(settings, tries, error.retry_after_s))

    @asynccontextmanager
    async def _turn_given_up(self) -> AsyncIterator[None]:
        """Let others ask meanwhile, and wait for one's turn again."""
        self._slots.release()
        try:
            yield
        finally:
            await self._slots.acquire()

    async def _try(self, requests: Sequence[TeacherRequest], suspect: bool) -> list[TeacherAnswer]:
        """Ask once; ``suspect``: see :meth:`Breaker.failed`. Raises as :meth:`Teacher.complete`."""
        limit_s = self._recipe.generation.request_timeout_s
        await self._breaker.admit()
        if self.draining and not requests[0].first:
            await asyncio.Event().wait()
        self._counts[""]["sent"] += 1
        try:
            answers = await asyncio.wait_for(self._teacher.complete(requests), limit_s)
        except TeacherAway as error:
            self._breaker.failed(str(error), retry_after_s=error.retry_after_s, suspect=suspect)
            raise
        except TimeoutError:
            reason = f"no answer within {limit_s:g} s (generation.request_timeout_s)"
            self._breaker.failed(reason, suspect=suspect)
            raise TeacherError(reason) from None
        except (TeacherError, TeacherRefusal):
            self._breaker.answered()
            raise
        finally:
            self._counts[""]["back"] += 1
        self._breaker.answered()
        return answers

    @staticmethod
    def _count(counts: Counter[str], sets: Sequence[RationaleSet], polls: Sequence[Poll]) -> None:
        counts["rows"] += len(sets)
        counts["tokens_in"] += sum(poll.prompt_tokens for poll in polls)
        counts["tokens_out"] += sum(
            completion.tokens for each in sets for completion in each.completions
        )
        counts["retries"] += sum(max(0, each.attempts - 1) for each in sets)
        counts.update(each.outcome.value for each in sets)


def retry_delay_s(settings: GenerationRecipe, attempt: int, retry_after_s: float) -> float:
    """Seconds to wait after attempt number ``attempt``: doubling, and at most MAX_BACKOFF_S.

    The delay is drawn from the upper half of that, so that requests which failed together do not
    return together. To it comes what the teacher asks for (Retry-After), up to the time limit of
    one request.
    """
    backoff_s = min(settings.backoff_s * 2 ** (attempt - 1), MAX_BACKOFF_S)
    return min(retry_after_s, settings.request_timeout_s) + backoff_s * random.uniform(0.5, 1.0)
