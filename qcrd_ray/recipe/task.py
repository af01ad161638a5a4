"""``task``: what kind of question is asked, and in which words."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from qcrd_ray.recipe.base import Count, Section

KINDS = (
    "word_problems",
    "arithmetic",
    "slotted_arithmetic",
    "multiple_choice",
    "nli",
    "yes_no",
    "short_text",
)


class FewShotExample(Section):
    """A worked example shown to the teacher before the question (few-shot)."""

    question: str
    """The question's text."""
    choices: tuple[str, ...] = ()
    """The choices of a multiple-choice question."""
    rationale: str
    """The reasoning, without the closing phrase."""
    answer: str
    """The answer that the reasoning ends in."""


class TaskRecipe(Section):
    """What kind of question is asked. A prompt field left empty takes the kind's own text."""

    kind: str
    """word_problems, arithmetic, slotted_arithmetic (for a small student, which reads n1, n2 ...
    for the numbers), multiple_choice, nli, yes_no, short_text, or a task of your own as
    package.module:Class.
    """
    options: dict[str, Any] = Field(default={})
    """Settings of a task of your own, which finds them in recipe.options."""
    system: str | None = None
    """System message for a teacher with a chat template; null: none."""
    instruction: str | None = None
    """What the teacher is asked to do with the question; null: the kind's text."""
    examples: tuple[FewShotExample, ...] = ()
    """Worked examples for the teacher, shown before the question."""
    thinking: tuple[str, str] | None = ("<think>", "</think>")
    """The marks around a reasoning model's thinking, which is kept apart from the rationale; null:
    the teacher has none.
    """
    closing: str = "So the answer is {answer}."
    """How explanations end; must hold {answer}."""
    decimal: Literal["point", "comma"] = "point"
    """The decimal mark of the numbers in questions, answers and texts, for arithmetic: 1,234.5 or
    1.234,5. With comma, a point before three digits parts thousands, in the data's answers as well.
    """
    max_question_chars: Count = 20_000
    """Longer questions are rejected with a reason."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS and not (
            ":" in kind and all(part.isidentifier() for part in re.split("[.:]", kind))
        ):
            raise ValueError(
                f"expected {', '.join(KINDS)}, or a task of your own as package.module:Class, not"
                f" {kind!r}"
            )
        return kind

    @model_validator(mode="after")
    def _read_options(self):
        if self.options and ":" not in self.kind:
            raise ValueError(
                f"options: only a task of your own has them, and {self.kind} does not read"
                f" {', '.join(self.options)}"
            )
        return self

    @model_validator(mode="after")
    def _reads_decimals(self):
        if self.decimal == "comma" and self.kind != "arithmetic" and ":" not in self.kind:
            raise ValueError(f"decimal: only arithmetic reads a decimal comma, not {self.kind}")
        return self

    @model_validator(mode="after")
    def _marks_can_be_found(self):
        if "{answer}" not in self.closing:
            raise ValueError("closing must hold {answer}, e.g. 'So the answer is {answer}.'")
        if self.thinking is not None and not all(mark.strip() for mark in self.thinking):
            raise ValueError(
                "thinking must be two marks, e.g. ['<think>', '</think>'], or null where the"
                " teacher does not think aloud"
            )
        return self
