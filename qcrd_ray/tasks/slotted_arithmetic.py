"""Arithmetic for a small student: it reads slots for the numbers, and its steps are computed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.arithmetic import Arithmetic
from qcrd_ray.tasks.base import Message, Parsed
from qcrd_ray.tasks.numbers import spell
from qcrd_ray.tasks.slots import (
    SLOT,
    evaluate,
    expression_of,
    fill,
    hide,
    hide_given,
    numbers_of,
    step_to,
)


@dataclass(frozen=True)
class SlottedArithmetic(Arithmetic):
    """A numeric answer, of a student that writes slots (``tasks/slots.py``).

    Slots are the student's alone: only what it reads and what it is to write holds them. The
    teacher is asked with numbers, and what :meth:`parse` returns has numbers, whoever wrote the
    text. So answers are compared, and rationales are kept and shown, as in ``arithmetic``.

    The student's label is an expression, "- n1 n2". Where a gold answer comes without an equation,
    it is the simplest one with that value, which can be a wrong one.
    """

    def check(self, question: Question) -> str:
        if slot := SLOT.search(question.question):
            return f"the question holds {slot[0]!r}, which stands for a number here"
        return super().check(question)

    def student_input(self, question: Question) -> str:
        return hide_given(super().student_input(question))

    def teacher_messages(self, question: Question) -> list[Message]:
        return Arithmetic(self.recipe).teacher_messages(question)

    def teacher_prompt(self, question: Question) -> str:
        return Arithmetic(self.recipe).teacher_prompt(question)

    def canonical(self, answer: str, question: Question) -> str | None:
        """The number, or the value of an expression over slots."""
        if SLOT.search(answer) is None:
            return super().canonical(answer, question)
        value = evaluate(answer, _given(question))
        return None if value is None else spell(value)

    def label(self, answer: str, question: Question) -> str:
        return expression_of(Fraction(answer), _given(question)) or answer

    def explanation(self, rationale: str, answer: str, question: Question) -> str:
        """The rationale and its answer with slots; what has no slot keeps its digits.

        A student cannot find an answer in digits. So a rationale that states its answer, and
        computes it in no step, gets one in front: the first step between two numbers of the
        question with this result, if there is one.
        """
        given = _given(question)
        text = super().explanation(rationale, answer, question)
        hidden = hide(text, given)
        if hidden.endswith(super().explanation("", answer, question)):
            step = step_to(Fraction(answer), given)
            return hide(f"{step}. {text}", given) if step else hidden
        return hidden

    def parse(self, text: str, question: Question) -> Parsed:
        return super().parse(fill(text, _given(question)), question)

    def describe(self) -> dict:
        return {
            **super().describe(),
            "slots": "n1, n2 ... stand for the question's numbers, r1, r2 ... for steps' results",
        }


def _given(question: Question) -> list[Fraction]:
    return numbers_of(question.question.strip())
