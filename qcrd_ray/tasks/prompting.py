"""Prompts for the teacher and the student: what all kinds of question share.

The teacher is asked in the paper's form, to explain step by step and then to answer; worked
examples come before the question. A chat model gets messages, any other model one plain text that
ends where its answer starts:

    {system}
    {instruction}

    Q: {example}
    A: {its rationale} So the answer is {its answer}.

    Q: {question}
    A:

With an empty instruction and no examples this is the bare ``Q: ...\\nA:`` that a small model can be
trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import FewShotExample, TaskRecipe
from qcrd_ray.tasks.answers import (
    LONGEST_EXCERPT,
    announcement_pattern,
    clean,
    cut_run_on,
    excerpt,
    find_announcements,
    rationale_without,
)
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Message, Parsed


@dataclass(frozen=True)
class PromptedTask(ABC):
    """A :class:`~qcrd_ray.tasks.base.Task` without ``canonical``, which each kind adds.

    A kind overrides what else differs in it.
    """

    recipe: TaskRecipe

    # The kind's own text, taken where the recipe's is left out.
    INSTRUCTION: ClassVar[str] = (
        'Answer the question. Explain step by step, then give the answer. End with "{closing}"'
    )
    NOUNS: ClassVar[tuple[str, ...]] = ("answer",)  # what texts call an answer of this kind
    # A question of this kind, shown where the recipe names none; None: there is no usual one.
    EXAMPLE: ClassVar[Question | None] = None

    def __post_init__(self) -> None:
        if not self.recipe.closing.split("{answer}", 1)[0].strip():
            raise UserError(
                f"task.closing: {self.recipe.closing!r} must have words before {{answer}}, or the"
                " answer cannot be found again"
            )

    @property
    def instruction(self) -> str:
        """The recipe's instruction to the teacher, or the kind's own, with {closing} filled in.

        "" stands for no instruction.
        """
        text = self.INSTRUCTION if self.recipe.instruction is None else self.recipe.instruction
        return text.replace("{closing}", self.recipe.closing.replace("{answer}", "<answer>"))

    def check(self, question: Question) -> str:
        """Why this question cannot be used; "" if it can. These checks hold for every kind."""
        if not question.question.strip():
            return "the question is empty"
        if question.answer is not None and self.canonical(question.answer, question) is None:
            return f"the answer {question.answer[:80]!r} is not {self.describe_answer(question)}"
        return ""

    @abstractmethod
    def canonical(self, answer: str, question: Question) -> str | None:
        """The one spelling of an answer, or None if it is none. Each kind defines it."""

    def describe_answer(self, question: Question) -> str:
        """What an answer of this kind is, for the reason of a rejection."""
        return "an answer to this kind of question"

    def student_input(self, question: Question) -> str:
        """The question as the student reads it, without prefix. Kinds with choices add them."""
        return question.question.strip()

    def teacher_messages(self, question: Question) -> list[Message]:
        """Chat messages: the system message, the examples as earlier turns, the question."""
        messages = [{"role": "system", "content": self.recipe.system}] if self.recipe.system else []
        for example, asked in self._examples():
            messages.append({"role": "user", "content": self._turn(asked)})
            messages.append(
                {
                    "role": "assistant",
                    "content": self.explanation(example.rationale, example.answer, asked),
                }
            )
        return [*messages, {"role": "user", "content": self._turn(question)}]

    def teacher_prompt(self, question: Question) -> str:
        """One plain text; it ends with ``A:``, where the completion starts."""
        head = "\n".join(line for line in (self.recipe.system, self.instruction) if line)
        blocks = [head] if head else []
        for example, asked in self._examples():
            blocks.append(
                f"Q: {self.student_input(asked)}\nA:"
                f" {self.explanation(example.rationale, example.answer, asked)}"
            )
        return "\n\n".join([*blocks, f"Q: {self.student_input(question)}\nA:"])

    def label(self, answer: str, question: Question) -> str:
        """The target text of the student's `predict:` head."""
        return answer

    def explanation(self, rationale: str, answer: str, question: Question) -> str:
        """The target text of the student's `explain:` head: the rationale and its own answer."""
        return f"{rationale.strip()} {self.recipe.closing.replace('{answer}', answer)}".strip()

    def parse(self, text: str, question: Question) -> Parsed:
        """Split a text into rationale and answer.

        The answer is that of the surest announcement ("So the answer is ...") with an answer of
        this kind; what stands before it is the rationale. A text that announces nothing may still
        end in an answer, or be one: see :meth:`read_unannounced`.
        """
        kept = cut_run_on(text, question.question)
        if not kept:
            return Parsed(reason="the completion is empty")
        for announcement in find_announcements(
            kept, self.recipe.closing, announcement_pattern(*self.NOUNS)
        ):
            if reason := self.unclear(announcement.text, question):
                return Parsed(rationale=clean(kept), reason=reason)
            if (answer := self.read_announced(announcement.text, question)) is not None:
                return Parsed(
                    rationale=rationale_without(kept, announcement),
                    answer=answer,
                    source=excerpt(kept, announcement),
                )
        answer, source = self.read_unannounced(kept, question) or (None, "")
        return Parsed(
            rationale=clean(kept),
            answer=answer,
            reason=""
            if answer is not None
            else f"the completion announces nothing that is {self.describe_answer(question)}",
            source=" ".join(source.split())[:LONGEST_EXCERPT],
        )

    def unclear(self, text: str, question: Question) -> str:
        """Why ``text``, which follows the announcing words, is no one answer; "" where it may be.

        The completion is then unread: what it said before is not what it ends in.
        """
        return ""

    def read_announced(self, text: str, question: Question) -> str | None:
        """The canonical answer in ``text``, which follows the announcing words, or None."""
        return self.canonical(text, question)

    def read_unannounced(self, text: str, question: Question) -> tuple[str, str] | None:
        """The answer of a text that announces none, and the words that it is read from, or None."""
        return None

    def describe(self) -> dict:
        """What a user of the student folder must know to ask the student and to read its text."""
        return {
            "kind": self.recipe.kind,
            "predict_prefix": PREDICT,
            "explain_prefix": EXPLAIN,
            "closing": self.recipe.closing,
            "system": self.recipe.system,
            "instruction": self.instruction,
            "examples": [example.model_dump(mode="json") for example in self.recipe.examples],
        }

    def _turn(self, question: Question) -> str:
        """A user's turn: the question below the instruction.

        Chat models forget a system message sooner than the turn that they answer.
        """
        return "\n\n".join(
            part for part in (self.instruction, self.student_input(question)) if part
        )

    def _examples(self) -> list[tuple[FewShotExample, Question]]:
        return [
            (e, Question(id="example", question=e.question, choices=e.choices, answer=e.answer))
            for e in self.recipe.examples
        ]
