"""One row for each answer that was measured, and what is counted over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from qcrd_ray.heads import Head, HeadAnswer
from qcrd_ray.method.scoring import accuracy
from qcrd_ray.records import Question

PREDICTION_SCHEMA = pa.schema(
    [
        ("name", pa.string()),  # who answered: "teacher, voted", "student base", "finetune", "student"
        ("head", pa.string()),  # by what: "label", "rationale"; the teacher: "one sample", "vote"
        ("split", pa.string()),
        ("question_id", pa.string()),
        ("gold", pa.string()),
        ("text", pa.string()),  # what the model wrote; null for a vote
        ("answer", pa.string()),  # the canonical answer read out of it; null: none, which counts as wrong
        ("right", pa.bool_()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A row of :data:`PREDICTION_SCHEMA`; ``right`` follows from the rest."""

    name: str
    head: str
    split: str
    question_id: str
    gold: str
    text: str | None = None
    answer: str | None = None
    finish_reason: str = ""
    tokens: int = 0

    @property
    def right(self) -> bool:
        return self.answer == self.gold

    def row(self) -> dict:
        return {name: getattr(self, name) for name in PREDICTION_SCHEMA.names}


def predicted(*, name: str, head: Head, split: str, questions: Sequence[Question], answers: Sequence[HeadAnswer]) -> Iterator[Prediction]:
    """A student's answers to questions with gold answers, in their order."""
    for question, answer in zip(questions, answers, strict=True):
        yield Prediction(
            name=name,
            head=head,
            split=split,
            question_id=question.id,
            gold=question.answer,
            text=answer.text,
            answer=answer.answer,
            finish_reason=answer.finish_reason,
            tokens=answer.tokens,
        )


def result_rows(predictions: Iterable[Prediction]) -> list[dict]:
    """A row for each (name, head, split), in the order of first appearance: what is right of all that was asked, with its Wilson 95 %
    interval. An answer that is missing or cannot be read is wrong, and is counted as ``unanswered`` too."""
    groups: dict[tuple[str, str, str], list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault((prediction.name, prediction.head, prediction.split), []).append(prediction)
    rows = []
    for (name, head, split), members in groups.items():
        measured = accuracy(sum(member.right for member in members), len(members))
        unanswered = sum(member.answer is None for member in members)
        rows.append({"name": name, "head": head, "split": split, **measured._asdict(), "unanswered": unanswered})
    return rows
