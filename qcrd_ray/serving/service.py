"""How a request is answered: with predictions, or with texts of either head.

Texts, scores of rationales and scores of a vote's samples come from the model through one batching
function each: ``write``, ``score`` and ``judge``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import (
    AnswerRequest,
    JudgeRequest,
    Sampling,
    ScoreRequest,
    Student,
)
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.inference.vote_result import VoteResult
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.caller import Caller
from qcrd_ray.serving.http_errors import RETRY, RequestError
from qcrd_ray.serving.messages import COLDEST, MAX_SAMPLES, PredictResponse, Query
from qcrd_ray.serving.metrics import Metrics

Write = Callable[[AnswerRequest], Awaitable[list[HeadAnswer]]]
Score = Callable[[ScoreRequest], Awaitable[float]]
JudgeSamples = Callable[[JudgeRequest], Awaitable[list[float]]]

# Characters of a question for each token that the student reads of it. Text has about 4; what lies
# behind 16 of them is not tokenised, because that costs by the character.
CHARS_PER_TOKEN = 16


class Service:
    """A student, with limits on the size and the time of a request.

    ``write``, ``score`` and ``judge`` take one item, and may answer several callers' items in one
    batch.
    """

    def __init__(
        self,
        student: Student,
        recipe: ServingRecipe,
        *,
        write: Write,
        score: Score,
        judge: JudgeSamples,
        metrics: Metrics,
    ) -> None:
        self.student, self.recipe, self.metrics = student, recipe, metrics
        self._write, self._score, self._judge = write, score, judge
        # a question is counted by its route and again for the metrics
        self._count = lru_cache(maxsize=1_024)(
            lambda question, head: student.prompt_tokens(question, head=head)
        )

    @property
    def usual_vote(self) -> dict[str, Any] | None:
        """The vote that the student's judge is calibrated for, with no more samples than one
        request may ask for; None: there is no judge, or a request may ask for no vote.
        """
        judge = self.student.folder.judge
        if judge is None or self.recipe.max_questions < 2:
            return None
        return {
            "samples": min(judge.samples, MAX_SAMPLES, self.recipe.max_questions),
            "temperature": judge.temperature,
            "top_p": judge.top_p,
            "inputs": list(judge.inputs),
        }

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Questions to try, as `/v1/predict` takes them: the recipe's, or the student folder's."""
        if self.recipe.examples:
            return [example.model_dump(mode="json") for example in self.recipe.examples]
        facts = self.student.folder.facts
        shown = [facts["example"], *facts.get("examples", [])]
        return [{key: each[key] for key in ("question", "choices")} for each in shown]

    async def predict(self, queries: Sequence[Query]) -> list[PredictResponse]:
        """One prediction for each query, in their order."""
        self.limit(sum(query.samples or 1 for query in queries))
        questions = [query.as_question() for query in queries]
        for number, (query, question) in enumerate(zip(queries, questions, strict=True)):
            if reason := self._refusal(query, question):
                raise RequestError(
                    422, f"question {number} of the list: {reason}" if len(queries) > 1 else reason
                )
        async with self._in_time():
            return list(
                await asyncio.gather(
                    *(
                        self._predict(query, question)
                        for query, question in zip(queries, questions, strict=True)
                    )
                )
            )

    async def write(
        self,
        questions: Sequence[Question],
        *,
        head: Head,
        sampling: Sampling,
        callers: Sequence[Caller],
    ) -> list[list[HeadAnswer]]:
        """``sampling.n`` texts of one head for each question, in their order.

        ``callers``, one for each question, hear them while they are written.
        """
        self.limit(len(questions) * sampling.n)
        if sampling.temperature < COLDEST:
            sampling = replace(sampling, temperature=0.0)
        async with self._in_time():
            return list(
                await asyncio.gather(
                    *(
                        self._generate(question, head, sampling, caller)
                        for question, caller in zip(questions, callers, strict=True)
                    )
                )
            )

    def _refusal(self, query: Query, question: Question) -> str:
        """Why ``query`` cannot be answered, in words for its sender; "" where it can."""
        if reason := self.student.refusal(question):
            return reason
        if query.quality and self.student.scorer is None:
            return (
                "quality: this student folder holds no discriminator, so nothing can score its"
                " rationales"
            )
        if query.vote and not query.samples:
            return "vote: samples vote; say how many by `samples`"
        if query.vote == "judged" and self.student.judge is None:
            return (
                "vote: this student folder holds no judge (its run had no judge.samples), so its"
                " samples can have a plain vote only"
            )
        return ""

    async def _predict(self, query: Query, question: Question) -> PredictResponse:
        greedy = Sampling(max_tokens=self.student.max_tokens)
        heads: list[Head] = ["label"]
        if query.rationale or query.quality:
            heads.append("rationale")
        voted, written = await asyncio.gather(
            self._vote(query, question),
            asyncio.gather(*(self._generate(question, head, greedy) for head in heads)),
        )
        (label,) = written[0]
        prediction = PredictResponse(label=label.answer, text=label.text)
        tokens = await self.tokens(question, head="label")
        prediction.question_cut = tokens is None or tokens > self.student.max_input_tokens
        if query.rationale or query.quality:
            (rationale,) = written[1]
            prediction.rationale, prediction.rationale_answer = (
                rationale.rationale or rationale.text,
                rationale.answer,
            )
            if query.quality:
                prediction.quality = await self._score(
                    ScoreRequest(question=question, text=rationale.text)
                )
        if voted is not None:
            prediction.add_vote(voted)
        return prediction

    async def _vote(self, query: Query, question: Question) -> VoteResult | None:
        """The vote that ``query`` asks for; None: it asks for none."""
        if not query.samples:
            return None
        sampling = self.student.vote_sampling(
            query.samples, temperature=query.temperature, top_p=query.top_p, seed=query.seed
        )
        samples = await self._generate(question, "rationale", sampling)
        if self.student.vote_kind(query.vote) == "plain":
            return self.student.vote(samples)
        scores = await self._judge(JudgeRequest(question=question, samples=tuple(samples)))
        self.metrics.tokens.labels("judged").inc(sum(sample.tokens for sample in samples))
        return self.student.vote(samples, scores)

    async def _generate(
        self, question: Question, head: Head, sampling: Sampling, caller: Caller | None = None
    ) -> list[HeadAnswer]:
        caller, question = caller or Caller(), self._cut(question)
        request = AnswerRequest(question=question, head=head, sampling=sampling, listener=caller)
        try:
            answers, tokens = await asyncio.gather(
                self._write(request), self.tokens(question, head=head)
            )
        finally:
            # cancelled: it hung up, or it was told that this takes too long
            caller.left = True
        self.metrics.tokens.labels("prompt").inc(tokens or 0)
        self.metrics.tokens.labels("completion").inc(sum(answer.tokens for answer in answers))
        return answers

    async def tokens(self, question: Question, *, head: Head) -> int | None:
        """The length of the question's prompt; None: it is longer than is worth counting.

        Counted in a thread: the event loop stays free.
        """
        if self._cut(question) is not question:
            return None
        return await asyncio.to_thread(self._count, question, head)

    def _cut(self, question: Question) -> Question:
        """The question up to where the student can have read it."""
        most = CHARS_PER_TOKEN * self.student.max_input_tokens
        if len(question.question) <= most:
            return question
        return replace(question, question=question.question[:most])

    def limit(self, texts: int) -> None:
        """Raise RequestError (422) where one request asks for too many ``texts``."""
        most = self.recipe.max_questions
        if texts > most:
            raise RequestError(
                422,
                f"one request may ask for at most {most} items, each sample of a question counted;"
                f" this asks for {texts}",
            )

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        limit = self.recipe.request_timeout_s
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError as error:
            raise RequestError(
                504,
                f"there was no answer within {limit:g} s; ask for less at once, or later",
                headers=RETRY,
            ) from error
