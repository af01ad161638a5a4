"""Predictions, a row for each measured answer, with accuracies and paired comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple

import pyarrow as pa

from qcrd_ray.data.records import Outcome, Question
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.method.ranking import accuracy
from qcrd_ray.runs.results import ResultRow
from qcrd_ray.tasks.base import Task

PREDICTION_SCHEMA = pa.schema(
    [
        # who answered: "teacher, voted", "student base", "finetune", "student"
        ("name", pa.string()),
        # by what: "label", "rationale", a vote ("judged vote of 8"); teacher: "one sample", "vote"
        ("head", pa.string()),
        ("split", pa.string()),
        ("question_id", pa.string()),
        ("gold", pa.string()),
        ("text", pa.string()),  # what the model wrote; null for a vote
        # the canonical answer read out of it; null: none, which counts as wrong
        ("answer", pa.string()),
        ("right", pa.bool_()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),  # generated, over all samples of a vote
        ("confidence", pa.float64()),  # of a vote; null for others
        # the question's share of the time that its batch took; null: not measured
        ("milliseconds", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A row of :data:`PREDICTION_SCHEMA`; ``right`` is computed."""

    name: str
    head: str
    split: str
    question_id: str
    gold: str
    text: str | None = None
    answer: str | None = None
    finish_reason: str = ""
    tokens: int = 0
    confidence: float | None = None
    milliseconds: float | None = None

    @property
    def right(self) -> bool:
        """Whether the answer is the gold answer."""
        return self.answer == self.gold

    def row(self) -> dict[str, Any]:
        """The row as plain Python values, in the order of :data:`PREDICTION_SCHEMA`."""
        return {name: getattr(self, name) for name in PREDICTION_SCHEMA.names}


def student_predictions(
    *,
    name: str,
    head: str,
    split: str,
    questions: Sequence[Question],
    answers: Sequence[HeadAnswer],
    milliseconds: float | None = None,
) -> Iterator[Prediction]:
    """A student's answers to questions that have canonical gold answers, in their order.

    ``milliseconds`` is what one of them took.
    """
    for question, answer in zip(questions, answers, strict=True):
        assert question.answer is not None, f"{question.id} has no gold answer"
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
            confidence=answer.confidence,
            milliseconds=milliseconds,
        )


def result_rows(predictions: Iterable[Prediction]) -> list[ResultRow]:
    """The accuracy of each (name, head, split), in the order of first appearance.

    It is the share of right answers among all questions asked, with its Wilson 95 % interval. An
    answer that is missing or cannot be read is wrong, and counts as ``unanswered`` too.
    """
    groups: dict[tuple[str, str, str], list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault((prediction.name, prediction.head, prediction.split), []).append(
            prediction
        )
    rows: list[ResultRow] = []
    for (name, head, split), members in groups.items():
        measured = accuracy(sum(member.right for member in members), len(members))
        unanswered = sum(member.answer is None for member in members)
        times = [each.milliseconds for each in members if each.milliseconds is not None]
        row: ResultRow = {
            "name": name,
            "head": head,
            "split": split,
            "correct": measured.correct,
            "total": measured.total,
            "accuracy": measured.accuracy,
            "low": measured.low,
            "high": measured.high,
            "unanswered": unanswered,
            "tokens": sum(member.tokens for member in members) / len(members),
        }
        if times:
            row["milliseconds"] = sum(times) / len(times)
        rows.append(row)
    return rows


def teacher_predictions(table: pa.Table, *, split: str, task: Task) -> Iterator[Prediction]:
    """Two predictions for each question with a gold answer: the first sample's, and the vote's.

    ``table`` has RATIONALE_SET_SCHEMA; the teacher is not asked again. It is one sample and not the
    mean over K, so that the answers are as independent as the interval assumes. A question that the
    teacher failed to answer counts as wrong; one that it was never asked (rejected input) is left
    out.
    """
    for row in table.to_pylist():
        if row["gold"] is None or row["outcome"] == Outcome.REJECTED_INPUT:
            continue
        question = Question.from_row(row)
        gold = task.canonical(row["gold"], question)
        assert gold is not None, f"{question.id}: a gold answer that reading has let pass"
        first: dict[str, Any] = (row["completions"] or [{}])[0]
        yield Prediction(
            name="teacher, one sample",
            head="one sample",
            split=split,
            question_id=question.id,
            gold=gold,
            text=first.get("text"),
            answer=first.get("answer"),
            finish_reason=first.get("finish_reason", ""),
            tokens=first.get("tokens", 0),
        )
        yield Prediction(
            name="teacher, voted",
            head="vote",
            split=split,
            question_id=question.id,
            gold=gold,
            answer=row["vote"],
            tokens=sum(each["tokens"] for each in row["completions"] or []),
        )


# --- Two models on the same questions ---


class Paired(NamedTuple):
    """Questions by which of two models got them right, and the p-value of McNemar's exact test."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


def pair(first: Mapping[str, bool], second: Mapping[str, bool]) -> Paired:
    """Compare two models by question id; the values say whether an answer is right.

    Raises:
        ValueError: the two were not asked the same questions.
    """
    if first.keys() != second.keys():
        raise ValueError(
            f"{len(first.keys() ^ second.keys())} questions were asked of one of the two only"
        )
    counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for question, right in first.items():
        counts[right, second[question]] += 1
    only_first, only_second = counts[True, False], counts[False, True]
    return Paired(
        counts[True, True],
        only_first,
        only_second,
        counts[False, False],
        mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test (Q. McNemar, 1947).

    If both models were equally good, each question that only one of them got would be the toss of a
    fair coin.
    """
    differing = only_first + only_second
    tail = sum(comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**differing)
