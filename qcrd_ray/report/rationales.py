"""The rows of a split, from the questions read to the votes.

How many rows reached each step, how large the votes' shares are, and how often a vote is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import pyarrow.parquet as pq

from qcrd_ray.data.records import ANSWERED, Outcome, Question, Role
from qcrd_ray.method.ranking import Accuracy, accuracy
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.recipe import Recipe
from qcrd_ray.report.axes import axis_over, percent
from qcrd_ray.report.charts import Interval, bar_chart, column_chart, interval_chart, legend_of_bars
from qcrd_ray.report.html import Markup, charts, figure, join, missing, section, table
from qcrd_ray.report.reading import ReadingSummary, read_summary, reading_figure
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task

BINS = 10
_COLUMNS = [
    *("question_id", "question", "choices", "gold", "outcome", "vote", "vote_share"),
    "samples_asked",
    *(f"completions.list.element.{name}" for name in ("role", "tokens", "finish_reason")),
]


_STEPS = {
    "read": "questions read",
    "asked": "asked of the teacher",
    "answered": "all samples came back",
    "parsed": "an answer could be read",
    "voted": "a vote was reached",
}
_LOST = {  # what a step lost, by the step that it did not reach
    "asked": (Outcome.REJECTED_INPUT, "rejected"),
    "answered": (Outcome.FAILED, "failed"),
    "parsed": (Outcome.UNPARSED, "unparsed"),
    "voted": (Outcome.NO_CONSENSUS, "without consensus"),
}


_ROLES = {
    Role.POSITIVE: "agree with the vote",
    Role.NEGATIVE: "disagree with it (minority)",
    Role.ABSTAINED: "without a vote",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one split.

    The ``outcomes`` of finished rows and the ``pending`` rows add up to the rows ``read``.
    ``votes`` holds a pair for each accepted row: the vote's share, and whether it is right (None:
    no gold answer). ``asked`` is :func:`asked_text`.
    """

    split: str
    read: int
    pending: int
    outcomes: dict[Outcome, int]
    roles: dict[Role, int]
    truncated: int
    tokens: int
    votes: list[tuple[float, bool | None]]
    reading: ReadingSummary
    asked: str

    @property
    def steps(self) -> list[tuple[str, int]]:
        """The funnel: each step and how many rows reached it."""
        out = self.outcomes
        asked = self.read - self.pending - out[Outcome.REJECTED_INPUT]
        answered = asked - out[Outcome.FAILED]
        parsed = answered - out[Outcome.UNPARSED]
        return [
            ("read", self.read),
            ("asked", asked),
            ("answered", answered),
            ("parsed", parsed),
            ("voted", parsed - out[Outcome.NO_CONSENSUS]),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The votes with a share in (low, high].

    ``measured`` is how often they are right; None where none has a gold answer.
    """

    low: float
    high: float
    right: int
    wrong: int
    unknown: int
    measured: Accuracy | None


def read_rows(recipe: Recipe, folder: RunFolder, split: str) -> Rows | None:
    """The rows of ``split``; None: its questions have not been read for the teacher."""
    store = RationaleStore(folder.rationales(split))
    requests = sorted(store.requests.glob("*/*.parquet"))
    if not requests:
        return None
    asked = sum(pq.read_metadata(file).num_rows for file in requests)
    rejected = (
        pq.read_metadata(folder.rejected(split)).num_rows if folder.rejected(split).exists() else 0
    )
    task = build_task(recipe.task)
    outcomes, roles = Counter(dict.fromkeys(Outcome, 0)), Counter(dict.fromkeys(Role, 0))
    truncated = tokens = samples_asked = answered = 0
    votes: list[tuple[float, bool | None]] = []
    for part in store.tables(_COLUMNS):
        for row in part.to_pylist():
            outcomes[Outcome(row["outcome"])] += 1
            for completion in row["completions"]:
                roles[Role(completion["role"])] += 1
                tokens += completion["tokens"]
                truncated += completion["finish_reason"] == "length"
            if row["outcome"] in ANSWERED:
                answered += 1
                samples_asked += row["samples_asked"]
            if row["outcome"] == Outcome.ACCEPTED:
                votes.append((row["vote_share"], _right(row, task)))
    pending = asked - outcomes.total()
    outcomes[Outcome.REJECTED_INPUT] += rejected
    return Rows(
        split=split,
        read=asked + rejected,
        pending=pending,
        outcomes=dict(outcomes),
        roles=dict(roles),
        truncated=truncated,
        tokens=tokens,
        votes=votes,
        reading=read_summary(folder, split),
        asked=asked_text(recipe, samples_asked, answered),
    )


def asked_text(recipe: Recipe, samples: int, questions: int) -> str:
    """How many samples the answered ``questions`` took, of k each; "" where each takes k."""
    k = recipe.sampling.k
    if recipe.sampling.adaptive is None or not questions:
        return ""
    share = f"{100 * samples / (k * questions):.0f} %"
    asked = f"{samples:,} of {k} x {questions:,} samples asked ({share})"
    return f"{asked}, since a settled vote needs no more"


def bins(votes: Sequence[tuple[float, bool | None]]) -> list[Bin]:
    """The votes in ten bins of their share; empty bins at either end are left out."""
    members: list[list[tuple[float, bool | None]]] = [[] for _ in range(BINS)]
    for share, right in votes:
        members[max(1, ceil(share * BINS - 1e-9)) - 1].append((share, right))
    every = [_bin(index, each) for index, each in enumerate(members)]
    filled = [index for index, each in enumerate(every) if each.right + each.wrong + each.unknown]
    return every[filled[0] : filled[-1] + 1] if filled else []


def _bin(index: int, members: list[tuple[float, bool | None]]) -> Bin:
    counts = Counter(right for _, right in members)
    known = counts[True] + counts[False]
    return Bin(
        low=index / BINS,
        high=(index + 1) / BINS,
        right=counts[True],
        wrong=counts[False],
        unknown=counts[None],
        measured=accuracy(counts[True], known) if known else None,
    )


def _right(row: dict[str, Any], task: Task) -> bool | None:
    if row["gold"] is None:
        return None
    return task.canonical(row["gold"], Question.from_row(row)) == row["vote"]


# --- How they are drawn ---


def rows_section(splits: Sequence[Rows]) -> Markup:
    """The section on rows and votes, split by split."""
    if not splits:
        return section(
            "rows",
            "Rows and votes",
            missing("The teacher has not been asked yet: `qcrd generate` does it."),
        )
    return section("rows", "Rows and votes", *(_split(rows) for rows in splits))


def _split(rows: Rows) -> Markup:
    shares = bins(rows.votes)
    shown = [funnel(rows)]
    if rows.reading.samples:
        shown.append(reading_figure(rows.split, rows.reading))
    if shares:
        shown.append(vote_columns(rows.split, shares))
    if any(each.measured for each in shares):
        shown.append(calibration(rows.split, shares))
    pending = (
        f"{rows.pending:,} rows of {rows.split} have not been finished yet: the same command goes"
        " on with them."
    )
    return join(missing(pending) if rows.pending else None, charts(*shown))


def funnel(rows: Rows) -> Markup:
    """A bar for each step, with the rows that it lost; the table holds the outcomes."""
    bars = []
    for step, count in rows.steps:
        lost = []
        if step in _LOST and rows.outcomes[_LOST[step][0]]:
            lost.append(f"{rows.outcomes[_LOST[step][0]]:,} {_LOST[step][1]}")
        if step == "asked" and rows.pending:
            lost.append(f"{rows.pending:,} not yet")
        bars.append((_STEPS[step], count, f"{count:,}" + (f" ({', '.join(lost)})" if lost else "")))
    outcomes = [
        (outcome.value.replace("_", " "), f"{count:,}", _share(count, rows.read))
        for outcome, count in rows.outcomes.items()
    ]
    if rows.pending:
        outcomes.append(("not finished yet", f"{rows.pending:,}", _share(rows.pending, rows.read)))
    outcomes.append(("read", f"{rows.read:,}", _share(rows.read, rows.read)))
    samples = sum(rows.roles.values())
    roles = [
        (_ROLES[role], f"{count:,}", _share(count, samples)) for role, count in rows.roles.items()
    ]
    numbers = join(
        table(("rows that ended as", "count", "share"), outcomes),
        table(
            ("samples of the teacher", "count", "share"),
            [*roles, ("all", f"{samples:,}", _share(samples, samples))],
        ),
    )
    title = f"How many rows of {rows.split} reached each step"
    note = (
        f"{samples:,} samples, {rows.tokens:,} tokens written; {rows.truncated:,} samples were cut"
        " off by the token limit."
    ) + (f" {rows.asked}." if rows.asked else "")
    return figure(
        title,
        bar_chart(title, "Bars as wide as the count of rows.", bars),
        note=note,
        numbers=numbers,
    )


def vote_columns(split: str, shares: Sequence[Bin]) -> Markup:
    """How many votes were won with each share."""
    known = any(each.measured for each in shares)
    parts = ("right", "wrong", "no gold answer") if known else ("questions",)
    columns = [
        (
            f"{100 * each.high:.0f}",
            (each.right, each.wrong, each.unknown) if known else (each.unknown,),
        )
        for each in shares
    ]
    used = parts if any(each.unknown for each in shares) or not known else parts[:2]
    title = f"How large a share the winning answer took, {split}"
    highest = [0, *(sum(counts) for _, counts in columns)]
    drawing = column_chart(
        title,
        "Columns of votes by share.",
        columns,
        parts=parts,
        x="winner's share of the votes, up to %",
        y=axis_over("questions", highest, whole=True),
    )
    numbers = table(
        ("share", *parts),
        [
            (f"{_bin_name(each)} %", *(f"{count:,}" for count in counts))
            for each, (_, counts) in zip(shares, columns, strict=True)
        ],
    )
    return figure(title, drawing, legend=legend_of_bars(used) if known else None, numbers=numbers)


def calibration(split: str, shares: Sequence[Bin]) -> Markup:
    """How often votes of each share are right: whether the share can be read as a confidence."""
    known = [(each, each.measured) for each in shares if each.measured]
    rows = [
        Interval(
            name=f"share {_bin_name(each)} %, {m.total:,} votes",
            kind=0,
            value=m.accuracy,
            low=m.low,
            high=m.high,
        )
        for each, m in known
    ]
    title = f"How often the vote is right, by its share, {split}"
    note = "A share that could be read as a confidence would have its dot inside its own range."
    drawing = interval_chart(
        title,
        "Share right with 95 % interval for each range of the vote's share.",
        rows,
        label="right votes (95 % interval)",
    )
    cells = [
        (
            f"{_bin_name(each)} %",
            f"{m.correct:,}",
            f"{m.total:,}",
            percent(m.accuracy),
            f"{percent(m.low)} to {percent(m.high)}",
        )
        for each, m in known
    ]
    return figure(
        title,
        drawing,
        note=note,
        numbers=table(("share", "right", "of", "right, %", "95 % interval"), cells),
    )


def _bin_name(each: Bin) -> str:
    return f"{100 * each.low:.0f}-{100 * each.high:.0f}"


def _share(count: int, whole: int) -> str:
    return f"{100 * count / whole:.1f} %" if whole else "-"
