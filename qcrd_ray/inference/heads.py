"""The student's two heads: ask either of them, and read its answer back as the task spells it.

Validation, evaluation and serving all ask through here, so that they mean the same by an answer.
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
    """What a head wrote (``text``), its reasoning (rationale head only), and the canonical answer
    in it; None: it holds none.
    """

    text: str
    rationale: str = ""
    answer: str | None = None
    finish_reason: str = "stop"
    tokens: int = 0


def ask(
    engine: Engine, task: Task, questions: Sequence[Question], *, head: Head, max_tokens: int
) -> list[HeadAnswer]:
    """Greedy answers of one head, in the order of the questions."""
    prompts = [prompt_of(task, question, head=head) for question in questions]
    written = engine.generate(prompts, max_tokens=max_tokens)
    return [
        read(task, question, generated, head=head)
        for question, (generated,) in zip(questions, written, strict=True)
    ]


def prompt_of(task: Task, question: Question, *, head: Head) -> str:
    """The text that the student reads when it is asked ``question`` of one head."""
    return f"{PREFIXES[head]}{task.student_input(question)}"


def read(task: Task, question: Question, generated: Generated, *, head: Head) -> HeadAnswer:
    """The answer in what a head wrote."""
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
