"""The student's two heads: the prompt of each, and the answer read out of its text.

A student is trained on two targets. The prefix of its input selects one: `predict:` the label,
`explain:` the rationale, which ends in an answer of its own (METHOD.md section 1, step 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qcrd_ray.data.records import Question
from qcrd_ray.inference import Engine, Generated
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task

Head = Literal["label", "rationale"]
PREFIXES: dict[Head, str] = {"label": PREDICT, "rationale": EXPLAIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAnswer:
    """The text that a head generated, and what the task reads out of it.

    ``rationale`` is empty for the label head. ``answer`` is canonical; None: the text holds none.
    ``confidence`` in [0, 1] is that of a vote, whose ``tokens`` are those of all its samples.
    """

    text: str
    rationale: str = ""
    answer: str | None = None
    finish_reason: str = "stop"
    tokens: int = 0
    confidence: float | None = None


def answer_questions(
    engine: Engine, task: Task, questions: Sequence[Question], *, head: Head, max_tokens: int
) -> list[HeadAnswer]:
    """The greedy answer of one head to each question, in their order."""
    prompts = [head_prompt(task, question, head=head) for question in questions]
    generated = engine.generate(prompts, max_tokens=max_tokens)
    return [
        read_answer(task, question, text, head=head)
        for question, (text,) in zip(questions, generated, strict=True)
    ]


def head_prompt(task: Task, question: Question, *, head: Head) -> str:
    """The input text of ``question`` for one head."""
    return f"{PREFIXES[head]}{task.student_input(question)}"


def read_answer(task: Task, question: Question, generated: Generated, *, head: Head) -> HeadAnswer:
    """Read the answer, and the rationale head's reasoning, out of a generated text."""
    if head == "label":
        rationale, answer = "", task.canonical(generated.text, question)
    else:
        parsed = task.parse(generated.text, question)
        rationale, answer = parsed.rationale, parsed.answer
    return HeadAnswer(
        text=generated.text,
        rationale=rationale,
        answer=answer,
        finish_reason=generated.finish_reason,
        tokens=generated.tokens,
    )
