"""The protocol between the rationales stage and any teacher: requests, answers, errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from qcrd_ray.data.records import Completion, Question
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.base import Message, Task

Prompt = str | list[Message]  # one plain text, or the messages of a chat


class TeacherError(Exception):
    """The teacher gave no answer this time; a retry may help.

    ``retry_after_s`` is how long the teacher asks to wait; 0: it does not say.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 0.0):
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class TeacherAway(TeacherError):
    """The teacher cannot be reached, or takes no request now: no fault of the question's.

    When nobody is answered, it is waited for by time and not by attempts.
    """


class TeacherRefusal(Exception):
    """The teacher cannot answer this question at all, such as a prompt longer than its context."""


class Stopped(Exception):
    """The teacher takes no more questions in this run; its token limit is reached, for example.

    The remaining questions fail at once, and the next run asks them.
    """


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One question, its prompt, and how many samples are asked.

    ``first`` is how many samples of this question came before; these are further ones. The requests
    of one call agree in both numbers.
    """

    question: Question
    prompt: Prompt
    samples: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """The samples of one question that were asked for, unparsed.

    ``prompt_tokens`` is 0 where the source does not count them.
    """

    completions: tuple[Completion, ...]
    prompt_tokens: int = 0


@runtime_checkable
class Teacher(Protocol):
    """A source of completions: as many for each question as are asked for, together.

    The driver checks, starts and stops it. Copies of it are sent to the actors that ask, so it must
    be picklable and small.
    """

    def identity(self) -> dict[str, Any]:
        """All that decides its answers, JSON-serialisable; it is part of every request's id."""
        ...

    def prompt(self, task: Task, question: Question) -> Prompt:
        """The question as this teacher takes it."""
        ...

    def check(self, questions: Iterable[Question]) -> None:
        """Raise UserError for mistakes that can be found before anything is started."""
        ...

    def start(self, report: Report = no_progress) -> None:
        """Make it ready to answer; does nothing when it is. Raises UserError, MissingResource."""
        ...

    def stop(self) -> None:
        """Free what :meth:`start` took; does nothing when it was not started."""
        ...

    async def complete(self, requests: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        """Answer several questions, in their order.

        Raises:
            TeacherError: a retry may help; TeacherAway, where no question is answered now.
            TeacherRefusal: one of the questions cannot be answered.
            Stopped: no further question can be answered in this run.
        """
        ...


@runtime_checkable
class Deployable(Protocol):
    """A teacher whose start takes long, and goes on by itself once it has begun."""

    def deploy(self, report: Report = no_progress) -> None:
        """Begin to start; does nothing when it has. Raises MissingResource."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A teacher that knows whether it is alive, in any process that asks it."""

    def trouble(self) -> str:
        """Why it does not answer at the moment, in words; "" where it does.

        It may take a second.

        Raises:
            Stopped: it will not answer any more.
        """
        ...
