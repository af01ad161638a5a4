"""One question while it is asked: its samples so far, and the rationale set that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcrd_ray.data.records import AskedUntil, Completion, Outcome, Question, RationaleSet
from qcrd_ray.rationales.settled import next_wave
from qcrd_ray.rationales.vote import VoteResult, cast_votes, hold_vote
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.thinking import read_completion
from qcrd_ray.teacher import Prompt, TeacherAnswer, TeacherRequest


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking one question: an answer, or the reason why there is none.

    ``attempts`` is 0 where the teacher had stopped before the question was answered, or asked.
    """

    answer: TeacherAnswer | None
    attempts: int
    reason: str = ""
    refused: bool = False


class Poll:
    """A question that is asked in waves, of which there is one without `sampling.adaptive`.

    ``id`` is that of the request. ``wanted`` is how many samples to ask next, 0 at the end.
    ``prompt_tokens`` are those of all waves.
    """

    def __init__(self, id: str, question: Question, prompt: Prompt, *, recipe: Recipe, task: Task):
        self._id, self._question, self._prompt = id, question, prompt
        self._recipe, self._task = recipe, task
        self._completions: list[Completion] = []
        self._asked = self._retries = 0
        self._failure: Reply | None = None  # of the wave that ended the asking
        self.prompt_tokens = 0
        self.wanted = self._next_wave()

    def request(self, samples: int) -> TeacherRequest:
        """The request for the next ``samples``."""
        return TeacherRequest(self._question, self._prompt, samples, first=self._asked)

    def take(self, reply: Reply, samples: int) -> None:
        """Read what came of asking for ``samples``.

        A wave that failed, or came back with fewer, is the last: its samples might not be missing
        by chance, and `vote.incomplete` says what becomes of the question.
        """
        self._retries += max(0, reply.attempts - 1)
        if reply.answer is None:
            self._failure, self.wanted = reply, 0
            return
        self._asked += samples
        self._completions += [self._parse(each) for each in reply.answer.completions]
        self.prompt_tokens += reply.answer.prompt_tokens
        self.wanted = self._next_wave() if len(self._completions) == self._asked else 0

    def rationale_set(self) -> RationaleSet:
        """The question's row, with its outcome and the reason."""
        result = self._result()
        stopped = result.outcome == Outcome.FAILED and self._failure and not self._failure.attempts
        return RationaleSet(
            id=self._id,
            question_id=self._question.id,
            question=self._question.question,
            choices=self._question.choices,
            gold=self._question.answer,
            completions=result.completions,
            outcome=result.outcome,
            reason=result.reason,
            vote=result.vote,
            vote_share=result.share,
            attempts=0 if stopped else 1 + self._retries,
            samples_asked=self._asked,
            asked_until=self._asked_until(),
        )

    def _next_wave(self) -> int:
        sampling = self._recipe.sampling
        if sampling.adaptive is None:
            return sampling.k - self._asked
        votes = cast_votes(self._completions, self._recipe.vote)
        return next_wave(votes, k=sampling.k, adaptive=sampling.adaptive)

    def _result(self) -> VoteResult:
        """The vote; or why there is none, with the samples of earlier waves, which are paid for."""
        failure, settings = self._failure, self._recipe.vote
        if failure is None or (self._completions and settings.incomplete == "vote"):
            return hold_vote(self._completions, k=self._asked, recipe=settings)
        outcome = Outcome.REJECTED_INPUT if failure.refused else Outcome.FAILED
        return VoteResult(
            outcome=outcome, completions=tuple(self._completions), reason=failure.reason
        )

    def _asked_until(self) -> AskedUntil:
        if self._failure or len(self._completions) < self._asked:
            return AskedUntil.INCOMPLETE
        return AskedUntil.SETTLED if self._asked < self._recipe.sampling.k else AskedUntil.ALL_K

    def _parse(self, completion: Completion) -> Completion:
        """The completion with its thinking split off, and its rationale and answer read."""
        thought, parsed = read_completion(
            completion.text, self._task, self._question, marks=self._recipe.task.thinking
        )
        return replace(
            completion,
            text=thought.text,
            thinking=completion.thinking or thought.thinking,
            rationale=parsed.rationale,
            answer=parsed.answer,
            reason="" if parsed.answer is not None else parsed.reason,
        )
