"""The schemas of a run's result files, and its accuracies as a table.

evaluation/results.json          Results: accuracies on the test splits
train/<objective>/metrics.jsonl  one RoundMetrics per line
train/<objective>/result.json    TrainingResult: what the training ended with
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

from rich.table import Table

from qcrd_ray.method.ranking import JudgeQuality

COLUMNS = ("split", "who", "answers by", "accuracy", "95 % interval", "right", "no answer")
WORDS = 3  # the first columns hold words, the others numbers
# what an answer costs: the column and its key in a row
COSTS: dict[str, Literal["tokens", "milliseconds"]] = {"tokens": "tokens", "ms": "milliseconds"}
CEILING_NOTE = (
    "`any of n` is a ceiling and no result: it takes a right sample where there is one, by looking"
    " at the gold answer"
)


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


def is_ceiling(head: str) -> bool:
    """Whether a row's head is `any of n`, which looks at the gold answer (CEILING_NOTE)."""
    return head.startswith("any of ")


def head_name(head: str) -> str:
    """A row's head as tables and charts write it: a ceiling is called one."""
    return f"{head} (ceiling)" if is_ceiling(head) else head


def ceiling_notes(rows: Sequence[ResultRow]) -> list[str]:
    """CEILING_NOTE where a ceiling is among the rows."""
    return [CEILING_NOTE] if any(is_ceiling(row["head"]) for row in rows) else []


def columns(rows: Sequence[ResultRow]) -> tuple[str, ...]:
    """The table's columns. What an answer costs stands there where it was measured."""
    return (*COLUMNS, *_costs(rows))


def table_rows(rows: Sequence[ResultRow]) -> list[tuple[str, ...]]:
    """The cells of :func:`columns`, split by split; accuracies and intervals in percent.

    Tokens and milliseconds are those of a question on average, "" where they were not measured.
    """
    splits = list(dict.fromkeys(row["split"] for row in rows))
    costs = _costs(rows)
    return [
        (
            row["split"],
            row["name"],
            head_name(row["head"]),
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} - {100 * row['high']:.1f}",
            f"{row['correct']}/{row['total']}",
            str(row["unanswered"]),
            *(cost_text(row.get(COSTS[name])) for name in costs),
        )
        for split in splits
        for row in rows
        if row["split"] == split
    ]


def cost_text(cost: float | None) -> str:
    """Tokens or milliseconds without meaningless digits; "" where none were counted."""
    if not cost:
        return ""
    return f"{cost:,.0f}" if cost >= 10 else f"{cost:.1f}"


def _costs(rows: Sequence[ResultRow]) -> list[str]:
    """The columns of costs that any row has a number for; a recording counts no tokens."""
    return [name for name, key in COSTS.items() if any(row.get(key) for row in rows)]


def render_table(rows: Sequence[ResultRow]) -> Table:
    """The table for a rich console."""
    table = Table(title="accuracy, %")
    for number, column in enumerate(columns(rows)):
        table.add_column(column, justify="left" if number < WORDS else "right")
    last = None
    for cells in table_rows(rows):
        if last not in (None, cells[0]):
            table.add_section()
        table.add_row(*cells)
        last = cells[0]
    return table


def markdown_table(rows: Sequence[ResultRow]) -> str:
    """The table in Markdown."""
    head = columns(rows)
    rule = ["---"] * WORDS + ["---:"] * (len(head) - WORDS)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *table_rows(rows)))
