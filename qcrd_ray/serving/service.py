"""How a request is answered: with predictions, or with texts of either head.

Each question and each score reaches the model through one of two batching functions, ``write`` and
``score``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import AnswerRequest, Sampling, ScoreRequest, Student
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.method.self_consistency import count_votes
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.http_errors import RETRY_AFTER_S, RequestError
from qcrd_ray.serving.messages import PredictResponse, Query
from qcrd_ray.serving.metrics import Metrics

Write = Callable[[AnswerRequest], Awaitable[list[HeadAnswer]]]
Score = Callable[[ScoreRequest], Awaitable[float]]


class Service:
    """A student, with limits on the size and the time of a request.

    ``write`` and ``score`` take one item, and may answer several callers' items in one batch.
    """

    def __init__(
        self,
        student: Student,
        recipe: ServingRecipe,
        *,
        write: Write,
        score: Score,
        metrics: Metrics,
    ) -> None:
        self.student, self.recipe, self.metrics = student, recipe, metrics
        self._write, self._score = write, score

    async def predict(self, queries: Sequence[Query]) -> list[PredictResponse]:
        """One prediction for each query, in their order."""
        self._limit(sum(query.samples or 1 for query in queries))
        questions = [query.as_question() for query in queries]
        for number, (query, question) in enumerate(zip(queries, questions, strict=True)):
            reason = self.student.refusal(question)
            if not reason and query.quality and self.student.scorer is None:
                reason = (
                    "quality: this student folder holds no discriminator, so nothing can score its"
                    " rationales"
                )
            if reason:
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
        self, questions: Sequence[Question], *, head: Head, sampling: Sampling
    ) -> list[list[HeadAnswer]]:
        """``sampling.n`` texts of one head for each question, in their order."""
        self._limit(len(questions) * sampling.n)
        async with self._in_time():
            return list(
                await asyncio.gather(
                    *(self._generate(question, head, sampling) for question in questions)
                )
            )

    async def _predict(self, query: Query, question: Question) -> PredictResponse:
        greedy = Sampling(max_tokens=self.student.max_tokens)
        wanted: list[tuple[Head, Sampling]] = [("label", greedy)]
        if query.rationale or query.quality:
            wanted.append(("rationale", greedy))
        if query.samples:
            drawn = {
                "n": query.samples,
                "temperature": query.temperature,
                "top_p": query.top_p,
                "seed": query.seed,
            }
            wanted.append(("rationale", Sampling(max_tokens=self.student.max_tokens, **drawn)))
        written = await asyncio.gather(
            *(self._generate(question, head, sampling) for head, sampling in wanted)
        )
        (label,) = written[0]
        prediction = PredictResponse(label=label.answer, text=label.text)
        prediction.question_cut = (
            self.student.prompt_tokens(question, head="label") > self.student.max_input_tokens
        )
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
        if query.samples:
            prediction.vote, prediction.confidence, prediction.votes = vote(written[-1])
        return prediction

    async def _generate(
        self, question: Question, head: Head, sampling: Sampling
    ) -> list[HeadAnswer]:
        answers = await self._write(AnswerRequest(question=question, head=head, sampling=sampling))
        self.metrics.tokens.labels("prompt").inc(self.student.prompt_tokens(question, head=head))
        self.metrics.tokens.labels("completion").inc(sum(answer.tokens for answer in answers))
        return answers

    def _limit(self, texts: int) -> None:
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
            again = {"Retry-After": str(RETRY_AFTER_S)}
            raise RequestError(
                504,
                f"there was no answer within {limit:g} s; ask for less at once, or later",
                headers=again,
            ) from error


def vote(samples: Sequence[HeadAnswer]) -> tuple[str | None, float | None, dict[str, int]]:
    """(the answer of most samples, its share of all samples, the count of each answer).

    The first two are None at a tie, and where no sample holds an answer. A sample that the token
    limit cut off has no vote: its last number need not be its answer.
    """
    count = count_votes(
        sample.answer if sample.finish_reason != "length" else None for sample in samples
    )
    votes = dict(count.votes)
    if len(count.leaders) != 1:
        return None, None, votes
    (winner,) = count.leaders
    return winner, count.share_of_samples(winner), votes
