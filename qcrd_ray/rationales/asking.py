"""Ask, parse, vote: from a block of questions to a block of rationale sets.

A :class:`BlockAnswerer` lives in a Ray Data actor, and its :class:`RationaleGenerator` keeps many
requests in flight. Whatever happens to a request (it fails, hangs or is refused), its questions
come out as rows with an outcome and a reason. Nothing is raised, so that no bad row takes others
with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Outcome, Question, RationaleSet
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.rationales.vote import VoteResult, hold_vote
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.run.files import write_table
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.answers import split_thinking
from qcrd_ray.teacher import (
    Stopped,
    Teacher,
    TeacherAnswer,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)

# What became of a block; `failed` leaves out what was not asked, since the teacher had stopped, and
# `reason` is that of one of them.
ANSWERED_SCHEMA = pa.schema([("rows", pa.int32()), ("failed", pa.int32()), ("reason", pa.string())])

SEND_EVERY_S = 0.5
MAX_BACKOFF_S = 60.0

log = logging.getLogger(__name__)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ProgressCounter:
    """What the actors have done so far, for the progress line and the manifest's speed.

    Restarted, it counts from 0 again.
    """

    def __init__(self):
        self._counts: Counter[str] = Counter()

    @ray.method
    def add(self, counts: Counter[str]) -> None:
        """Add an actor's counts since its last call."""
        self._counts += counts

    @ray.method
    def read(self) -> Counter[str]:
        """The sums over all actors."""
        return self._counts


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking one question: an answer, or the reason why there is none.

    ``attempts`` is 0 where the teacher had stopped before the question was asked.
    """

    answer: TeacherAnswer | None
    attempts: int
    reason: str = ""
    refused: bool = False


class RationaleGenerator:
    """A table of requests in, as many rationale sets out.

    ``send_counts`` takes what has been done since its last call: rows, rows by outcome, tokens_in,
    tokens_out, retries.
    """

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        send_counts: Callable[[Counter[str]], object],
    ):
        self._recipe = recipe
        self._teacher = teacher
        self._task = build_task(recipe.task)
        self._send_counts = send_counts
        self._counts: Counter[str] = Counter()
        self._sent = time.monotonic()
        self._slots = asyncio.Semaphore(recipe.generation.requests_in_flight)

    async def __call__(self, requests: pa.Table) -> pa.Table:
        """RATIONALE_SET_SCHEMA for REQUEST_SCHEMA, in the same order."""
        rows = requests.to_pylist()
        size = self._recipe.generation.questions_per_request
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        answered = await asyncio.gather(*(self._answer(group) for group in groups))
        self._send()
        return pa.Table.from_pylist(
            [each.row() for group in answered for each in group], schema=RATIONALE_SET_SCHEMA
        )

    async def _answer(self, rows: Sequence[dict[str, Any]]) -> list[RationaleSet]:
        """The rationale sets of the questions that share one request."""
        questions = [Question.from_row(row) for row in rows]
        requests = [
            TeacherRequest(question, self._teacher.prompt(self._task, question))
            for question in questions
        ]
        async with self._slots:
            replies = await self._ask(requests)
        sets = [
            self._parse_and_vote(row["id"], question, reply)
            for row, question, reply in zip(rows, questions, replies, strict=True)
        ]
        self._count(sets, replies)
        return sets

    async def _ask(self, requests: Sequence[TeacherRequest]) -> list[Reply]:
        """Ask until there is an answer or the attempts are used up, waiting longer each time."""
        settings = self._recipe.generation
        reason, retry_after_s = "", 0.0
        for attempt in range(1, settings.attempts + 1):
            try:
                answers = await asyncio.wait_for(
                    self._teacher.complete(requests), settings.request_timeout_s
                )
                return [Reply(answer, attempt) for answer in answers]
            except TeacherRefusal as refusal:
                if len(requests) == 1:
                    return [Reply(None, attempt, reason=str(refusal), refused=True)]
                # one question must not spoil the others' request
                return [reply for request in requests for reply in await self._ask([request])]
            except Stopped as stopped:
                return [Reply(None, 0, reason=str(stopped))] * len(requests)
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
                requests[0].question.id,
                reason,
            )
            if attempt < settings.attempts:
                await asyncio.sleep(retry_delay_s(settings, attempt, retry_after_s))
        return [Reply(None, settings.attempts, reason=reason)] * len(requests)

    def _parse_and_vote(self, id: str, question: Question, reply: Reply) -> RationaleSet:
        if reply.answer is None:
            outcome = Outcome.REJECTED_INPUT if reply.refused else Outcome.FAILED
            result = VoteResult(outcome=outcome, completions=(), reason=reply.reason)
        else:
            parsed = [self._parse(completion, question) for completion in reply.answer.completions]
            result = hold_vote(parsed, k=self._recipe.sampling.k, recipe=self._recipe.vote)
        return RationaleSet(
            id=id,
            question_id=question.id,
            question=question.question,
            choices=question.choices,
            gold=question.answer,
            completions=result.completions,
            outcome=result.outcome,
            reason=result.reason,
            vote=result.vote,
            vote_share=result.share,
            attempts=reply.attempts,
        )

    def _parse(self, completion: Completion, question: Question) -> Completion:
        """The completion with its thinking split off, and its rationale and answer read."""
        thought = split_thinking(completion.text, self._recipe.task.thinking)
        split = replace(
            completion, text=thought.text, thinking=completion.thinking or thought.thinking
        )
        if thought.cut_off:
            return replace(split, reason="cut off inside its thinking")
        parsed = self._task.parse(thought.text, question)
        reason = "" if parsed.answer is not None else parsed.reason or "no answer found"
        return replace(split, rationale=parsed.rationale, answer=parsed.answer, reason=reason)

    def _count(self, sets: Sequence[RationaleSet], replies: Sequence[Reply]) -> None:
        self._counts["rows"] += len(sets)
        self._counts["tokens_in"] += sum(
            reply.answer.prompt_tokens for reply in replies if reply.answer
        )
        self._counts["tokens_out"] += sum(
            completion.tokens for each in sets for completion in each.completions
        )
        self._counts["retries"] += sum(max(0, reply.attempts - 1) for reply in replies)
        self._counts.update(each.outcome.value for each in sets)
        if time.monotonic() - self._sent > SEND_EVERY_S:
            self._send()

    def _send(self) -> None:
        self._send_counts(self._counts)
        self._counts, self._sent = Counter(), time.monotonic()


class BlockAnswerer:
    """The callable of a Ray Data actor: blocks of pending requests become files of rows."""

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        store: RationaleStore,
        send_counts: Callable[[Counter[str]], object],
    ):
        self._generate = RationaleGenerator(recipe, teacher, send_counts)
        self._store = store

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer the block that ``batch`` names, by shard and number, and write its rows.

        The file appears whole, so a block that is asked twice, since its actor died, is one block.
        Returns one row of ANSWERED_SCHEMA.
        """
        ((shard, block),) = (tuple(row.values()) for row in batch.to_pylist())
        rows = await self._generate(self._store.read_block(shard, block))
        write_table(rows, self._store.block_file(shard, block))
        failed = [
            row["reason"]
            for row in rows.select(["outcome", "reason", "attempts"]).to_pylist()
            if row["outcome"] == Outcome.FAILED and row["attempts"]
        ]
        answered = {
            "rows": rows.num_rows,
            "failed": len(failed),
            "reason": failed[0] if failed else None,
        }
        return pa.Table.from_pylist([answered], schema=ANSWERED_SCHEMA)


def retry_delay_s(settings: GenerationRecipe, attempt: int, retry_after_s: float) -> float:
    """Seconds to wait after attempt number ``attempt``: doubling, and at most MAX_BACKOFF_S.

    The delay is drawn from the upper half of that, so that requests which failed together do not
    return together. To it comes what the teacher asks for (Retry-After), up to the time limit of
    one request.
    """
    backoff_s = min(settings.backoff_s * 2 ** (attempt - 1), MAX_BACKOFF_S)
    return min(retry_after_s, settings.request_timeout_s) + backoff_s * random.uniform(0.5, 1.0)
