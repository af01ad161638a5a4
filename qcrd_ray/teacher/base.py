"""What a teacher is to the stage that asks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from qcrd_ray.data.records import Completion, Question
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.tasks.base import Message, Task

Prompt = str | list[Message]  # one plain text, or the messages of a chat


class TeacherError(Exception):
    """The teacher gave no answer this time: asking again may help, after ``retry_after_s`` where it
    said so.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 0.0):
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class TeacherRefusal(Exception):
    """The teacher cannot answer this question at all (a prompt longer than its context, say):
    asking again is in vain.
    """


class Stopped(Exception):
    """The teacher takes no more questions in this run (its token limit is reached, it refuses the
    key): what is left fails at once, and
    the next run asks it.
    """


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One question and the prompt that is made of it."""

    question: Question
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """The K samples of one question, unparsed, and how many tokens its prompt had (0: the source
    does not say).
    """

    completions: tuple[Completion, ...]
    prompt_tokens: int = 0


@runtime_checkable
class Teacher(Protocol):
    """A source of completions, K for each question together.

    The driver checks, starts and stops it. Copies of it travel to the actors that ask, so what it
    holds must be picklable and small.
    """

    def identity(self) -> dict:
        """What makes its answers what they are, JSON-serialisable: it enters every row's id."""
        ...

    def prompt(self, task: Task, question: Question) -> Prompt:
        """The question in the form that this teacher takes."""
        ...

    def check(self, questions: Sequence[Question]) -> None:
        """Find the user's mistakes before anything is started. Raises UserError."""
        ...

    def start(self, report: Report = no_progress) -> None:
        """Make it ready to answer; does nothing when it is. Raises UserError, MissingResource."""
        ...

    def stop(self) -> None:
        """Free what :meth:`start` took; does nothing when it was not started."""
        ...

    async def complete(self, asks: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        """Answer several questions, in their order. Raises TeacherError (try again), Refusal (do
        not) or Stopped (ask nobody).
        """
        ...
