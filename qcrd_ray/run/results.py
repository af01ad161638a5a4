"""The schemas of a run's result files, and its accuracies as a table.

evaluation/results.json          Results: accuracies on the test splits
train/<objective>/metrics.jsonl  one RoundMetrics per line
train/<objective>/result.json    TrainingResult: what the training ended with
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from rich.table import Table

from qcrd_ray.method.ranking import JudgeQuality

COLUMNS = ("split", "who", "answers by", "accuracy", "95 % interval", "right", "no answer")


class ResultRow(TypedDict):
    """The accuracy of one model's head on one split."""

    name: str  # "teacher, one sample", "teacher, voted", "student base", a baseline, "student"
    head: (
        str  # "label", "rationale" or a vote ("judged vote of 8"); of the teacher "one sample" ...
    )
    split: str
    correct: int
    total: int
    accuracy: float  # correct / total
    low: float  # ends of the 95 % interval by Wilson's score
    high: float
    unanswered: int  # no answer could be read; counted as wrong
    tokens: NotRequired[float]  # generated for a question, on average, over all samples of a vote
    milliseconds: NotRequired[float]  # a question, on average, in batches


class SplitCounts(TypedDict):
    """How many questions of a split were measured, and how many were left out."""

    measured: int
    without_answer: int
    rejected: int


class Results(TypedDict):
    """The content of evaluation/results.json."""

    rows: list[ResultRow]
    # model -> split -> judge: how well it judges samples for these questions; {}: no judge
    judges: NotRequired[dict[str, dict[str, dict[str, JudgeQuality]]]]
    splits: dict[str, SplitCounts]
    notes: list[str]  # what a reader must know beside the numbers


class RoundMetrics(TypedDict):
    """One line of metrics.jsonl: the numbers of one training round."""

    round: int  # from 0
    step: int  # optimizer steps done at the round's end
    learning_rate: float
    student: dict[str, float]  # the objective's mean losses and shares
    seconds: dict[str, float]  # by part of the round
    tokens: int  # tokens that the student's steps read
    negatives: NotRequired[dict[str, Any]]
    discriminator: NotRequired[dict[str, float]]
    validation: NotRequired[dict[str, float]]  # accuracy by head, and "mean"


class TrainingResult(TypedDict):
    """The content of a finished training's result.json."""

    objective: str
    best_round: int
    chosen_by: str  # "label", "rationale" or "mean": the accuracy that best_round is chosen by
    validation: dict[str, float]  # of the best round
    last_validation: dict[str, float]
    rounds: int
    steps: int
    questions_seen: int  # with repetitions
    data: dict[str, Any]  # the training set's manifest without its source
    negatives: dict[str, int]  # negatives of the last round by source: from_teacher, ...
    # of the best round, on held-out questions; {}: without one, or not probed
    discriminator: NotRequired[dict[str, float]]
    seconds: dict[str, float]  # by part, summed over the rounds


class JudgeTraining(TypedDict):
    """The content of a training's judges/quality.json.

    ``judges``: of each judge, how well it judges questions that it was not trained on (the others
    of a split into folds).
    """

    questions: int  # that they were trained on
    samples: int  # of each question
    judges: dict[str, JudgeQuality]
    student: NotRequired[str]  # the fingerprint of the student that was sampled
    seconds: NotRequired[float]


def table_rows(rows: Sequence[ResultRow]) -> list[tuple[str, ...]]:
    """The cells of the table, split by split; accuracies and intervals in percent."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    return [
        (
            row["split"],
            row["name"],
            row["head"],
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} - {100 * row['high']:.1f}",
            f"{row['correct']}/{row['total']}",
            str(row["unanswered"]),
        )
        for split in splits
        for row in rows
        if row["split"] == split
    ]


def render_table(rows: Sequence[ResultRow]) -> Table:
    """The table for a rich console."""
    table = Table(title="accuracy, %")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    last = None
    for cells in table_rows(rows):
        if last not in (None, cells[0]):
            table.add_section()
        table.add_row(*cells)
        last = cells[0]
    return table


def markdown_table(rows: Sequence[ResultRow]) -> str:
    """The table in Markdown."""
    rule = ("---", "---", "---", "---:", "---:", "---:", "---:")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (COLUMNS, rule, *table_rows(rows)))
