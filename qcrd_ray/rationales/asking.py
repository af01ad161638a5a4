"""Ask, parse, vote: what happens to one question between `asks.parquet` and `rows/`.

An :class:`Asker` lives in a Ray Data actor and keeps many requests in flight. Whatever a request
does -- it fails, hangs, or is refused -- its questions come out as rows with an outcome and a
reason; nothing is raised, so no bad row takes others with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import ray

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Outcome, Question, RationaleSet
from qcrd_ray.rationales.vote import Verdict, hold_vote
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.thinking import split_thinking
from qcrd_ray.teacher import (
    Stopped,
    Teacher,
    TeacherAnswer,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)

TELL_EVERY_S = 0.5
LONGEST_BACKOFF_S = 60.0

log = logging.getLogger(__name__)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Tally:
    """What the askers have done so far, for the driver's progress line and the manifest's speed.
    Restarted, it counts from 0 again.
    """

    def __init__(self):
        self._counts: Counter[str] = Counter()

    def add(self, counts: Counter[str]) -> None:
        self._counts += counts

    def read(self) -> Counter[str]:
        return self._counts


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking one question: an answer, or the reason why there is none. 0 attempts: the
    teacher had stopped.
    """

    answer: TeacherAnswer | None
    attempts: int
    reason: str = ""
    refused: bool = False


class Asker:
    """A Ray Data callable: a block of asks in, as many rationale sets out. ``tell`` is handed what
    has been done since it last was.
    """

    def __init__(self, recipe: Recipe, teacher: Teacher, tell: Callable[[Counter[str]], object]):
        self._recipe = recipe
        self._teacher = teacher
        self._task = build_task(recipe.task)
        self._tell_counts = tell
        self._counts: Counter[str] = Counter()
        self._told = time.monotonic()
        self._slots = asyncio.Semaphore(recipe.generation.requests_in_flight)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        size = self._recipe.generation.questions_per_request
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        answered = await asyncio.gather(*(self._answer(group) for group in groups))
        self._tell(at_once=True)
        return pa.Table.from_pylist(
            [row.row() for group in answered for row in group], schema=RATIONALE_SET_SCHEMA
        )

    async def _answer(self, rows: Sequence[dict]) -> list[RationaleSet]:
        questions = [
            Question(
                id=row["question_id"],
                question=row["question"],
                choices=tuple(row["choices"]),
                answer=row["gold"],
            )
            for row in rows
        ]
        asks = [
            TeacherRequest(question, self._teacher.prompt(self._task, question))
            for question in questions
        ]
        async with self._slots:
            replies = await self._ask(asks)
        sets = [
            self._judge(row["id"], question, reply)
            for row, question, reply in zip(rows, questions, replies, strict=True)
        ]
        self._count(sets, replies)
        return sets

    async def _ask(self, asks: Sequence[TeacherRequest]) -> list[Reply]:
        """Ask until there is an answer or the attempts are used up, waiting twice as long before
        each new one.
        """
        settings = self._recipe.generation
        reason, retry_after_s = "", 0.0
        for attempt in range(1, settings.attempts + 1):
            try:
                answers = await asyncio.wait_for(
                    self._teacher.complete(asks), settings.request_timeout_s
                )
                return [Reply(answer, attempt) for answer in answers]
            except TeacherRefusal as refusal:
                if len(asks) == 1:
                    return [Reply(None, attempt, reason=str(refusal), refused=True)]
                # one question must not spoil the others' request
                return [reply for ask in asks for reply in await self._ask([ask])]
            except Stopped as stopped:
                return [Reply(None, 0, reason=str(stopped))] * len(asks)
            except TimeoutError:
                retry_after_s = 0.0
                reason = (
                    f"no answer within {settings.request_timeout_s:g} s"
                    " (generation.request_timeout_s)"
                )
            except TeacherError as error:
                reason, retry_after_s = str(error), error.retry_after_s
            log.warning(
                "attempt %d of %d at %s: %s",
                attempt,
                settings.attempts,
                asks[0].question.id,
                reason,
            )
            if attempt < settings.attempts:
                await asyncio.sleep(pause(settings, attempt, retry_after_s))
        return [Reply(None, settings.attempts, reason=reason)] * len(asks)

    def _judge(self, id: str, question: Question, reply: Reply) -> RationaleSet:
        if reply.answer is None:
            outcome = Outcome.REJECTED_INPUT if reply.refused else Outcome.FAILED
            verdict = Verdict(outcome=outcome, completions=(), reason=reply.reason)
        else:
            parsed = [self._parse(completion, question) for completion in reply.answer.completions]
            verdict = hold_vote(parsed, k=self._recipe.sampling.k, recipe=self._recipe.vote)
        return RationaleSet(
            id=id,
            question_id=question.id,
            question=question.question,
            choices=question.choices,
            gold=question.answer,
            completions=verdict.completions,
            outcome=verdict.outcome,
            reason=verdict.reason,
            vote=verdict.vote,
            vote_share=verdict.share,
            attempts=reply.attempts,
        )

    def _parse(self, completion: Completion, question: Question) -> Completion:
        thought = split_thinking(completion.text, self._recipe.task.thinking)
        apart = replace(
            completion, text=thought.text, thinking=completion.thinking or thought.thinking
        )
        if thought.cut_off:
            return replace(apart, reason="cut off inside its thinking")
        parsed = self._task.parse(thought.text, question)
        reason = "" if parsed.answer is not None else parsed.reason or "no answer found"
        return replace(apart, rationale=parsed.rationale, answer=parsed.answer, reason=reason)

    def _count(self, sets: Sequence[RationaleSet], replies: Sequence[Reply]) -> None:
        self._counts["rows"] += len(sets)
        self._counts["tokens_in"] += sum(
            reply.answer.prompt_tokens for reply in replies if reply.answer
        )
        self._counts["tokens_out"] += sum(
            completion.tokens for row in sets for completion in row.completions
        )
        self._counts["retries"] += sum(max(0, reply.attempts - 1) for reply in replies)
        self._counts.update(row.outcome.value for row in sets)
        self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._told > TELL_EVERY_S:
            self._tell_counts(self._counts)
            self._counts, self._told = Counter(), time.monotonic()


def pause(settings: GenerationRecipe, attempt: int, retry_after_s: float) -> float:
    """Seconds before the next try. At random within half of what is due, so that requests which
    failed together do not return together.

    What a teacher asks for (Retry-After) is waited for at least, but no longer than one request may
    take.
    """
    backoff = min(settings.backoff_s * 2 ** (attempt - 1), LONGEST_BACKOFF_S) * random.uniform(
        0.5, 1.0
    )
    return min(retry_after_s, settings.request_timeout_s) + backoff
