"""The student's two heads: ask either of them, and read its answer back as the task spells it.

Validation, evaluation and serving all ask through here, so that they mean the same by an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qcrd_ray.engines import Engine
from qcrd_ray.records import Question
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task

Head = Literal["label", "rationale"]
PREFIXES: dict[Head, str] = {"label": PREDICT, "rationale": EXPLAIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAnswer:
    """What a head wrote (``text``), its reasoning (rationale head only), and the canonical answer in it; None: it holds none."""

    text: str
    rationale: str = ""
    answer: str | None = None
    finish_reason: str = "stop"
    tokens: int = 0


def ask(engine: Engine, task: Task, questions: Sequence[Question], *, head: Head, max_tokens: int) -> list[HeadAnswer]:
    """Greedy answers of one head, in the order of the questions."""
    prompts = [f"{PREFIXES[head]}{task.student_input(question)}" for question in questions]
    answers = []
    for question, (generated,) in zip(questions, engine.generate(prompts, max_tokens=max_tokens), strict=True):
        if head == "label":
            rationale, answer = "", task.canonical(generated.text, question)
        else:
            parsed = task.parse(generated.text, question)
            rationale, answer = parsed.rationale, parsed.answer
        answers.append(
            HeadAnswer(
                text=generated.text, rationale=rationale, answer=answer, finish_reason=generated.finish_reason, tokens=generated.tokens
            )
        )
    return answers
