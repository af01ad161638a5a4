"""The funnel of rows, and the votes."""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.records import Outcome, Role
from qcrd_ray.report.axes import over, percent
from qcrd_ray.report.blocks import charts, figure, missing, section, table
from qcrd_ray.report.charts import Interval, bar_chart, column_chart, interval_chart, legend_of_bars
from qcrd_ray.report.facts.rows import Bin, Rows, bins
from qcrd_ray.report.markup import Markup, join

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


def rows_section(splits: Sequence[Rows]) -> Markup:
    if not splits:
        return section("rows", "Rows and votes", missing("The teacher has not been asked yet: `qcrd generate` does it."))
    return section("rows", "Rows and votes", *(_split(rows) for rows in splits))


def _split(rows: Rows) -> Markup:
    shares = bins(rows.votes)
    shown = [funnel(rows)]
    if shares:
        shown.append(vote_columns(rows.split, shares))
    if any(each.measured for each in shares):
        shown.append(calibration(rows.split, shares))
    pending = f"{rows.pending:,} rows of {rows.split} have not been finished yet: the same command goes on with them."
    return join(missing(pending) if rows.pending else None, charts(*shown))


def funnel(rows: Rows) -> Markup:
    """Five steps, each with what it lost; the table under it holds the outcomes, which add up to the rows read."""
    bars = []
    for step, count in rows.steps:
        lost = []
        if step in _LOST and rows.outcomes[_LOST[step][0]]:
            lost.append(f"{rows.outcomes[_LOST[step][0]]:,} {_LOST[step][1]}")
        if step == "asked" and rows.pending:
            lost.append(f"{rows.pending:,} not yet")
        bars.append((_STEPS[step], count, f"{count:,}" + (f" ({', '.join(lost)})" if lost else "")))
    outcomes = [(outcome.value.replace("_", " "), f"{count:,}", _share(count, rows.read)) for outcome, count in rows.outcomes.items()]
    if rows.pending:
        outcomes.append(("not finished yet", f"{rows.pending:,}", _share(rows.pending, rows.read)))
    outcomes.append(("read", f"{rows.read:,}", _share(rows.read, rows.read)))
    samples = sum(rows.roles.values())
    roles = [(_ROLES[role], f"{count:,}", _share(count, samples)) for role, count in rows.roles.items()]
    numbers = join(
        table(("rows that ended as", "count", "share"), outcomes),
        table(("samples of the teacher", "count", "share"), [*roles, ("all", f"{samples:,}", _share(samples, samples))]),
    )
    title = f"How many rows of {rows.split} reached each step"
    note = f"{samples:,} samples, {rows.tokens:,} tokens written; {rows.truncated:,} samples were cut off by the token limit."
    return figure(title, bar_chart(title, "Bars as wide as the count of rows.", bars), note=note, numbers=numbers)


_ROLES = {Role.POSITIVE: "agree with the vote", Role.NEGATIVE: "disagree with it (minority)", Role.ABSTAINED: "without a vote"}


def vote_columns(split: str, shares: Sequence[Bin]) -> Markup:
    """How many votes were won with which share."""
    known = any(each.measured for each in shares)
    parts = ("right", "wrong", "no gold answer") if known else ("questions",)
    columns = [(f"{100 * each.high:.0f}", (each.right, each.wrong, each.unknown) if known else (each.unknown,)) for each in shares]
    used = parts if any(each.unknown for each in shares) or not known else parts[:2]
    title = f"How large a share the winning answer took, {split}"
    highest = [0, *(sum(counts) for _, counts in columns)]
    drawing = column_chart(
        title,
        "Columns of votes by share.",
        columns,
        parts=parts,
        x="winner's share of the votes, up to %",
        y=over("questions", highest, whole=True),
    )
    numbers = table(
        ("share", *parts),
        [(f"{_bin_name(each)} %", *(f"{count:,}" for count in counts)) for each, (_, counts) in zip(shares, columns, strict=True)],
    )
    return figure(title, drawing, legend=legend_of_bars(used) if known else None, numbers=numbers)


def calibration(split: str, shares: Sequence[Bin]) -> Markup:
    """How often votes of each share are right: whether the share can be read as a confidence."""
    found = [(each, each.measured) for each in shares if each.measured]
    rows = [
        Interval(name=f"share {_bin_name(each)} %, {m.total:,} votes", kind=0, value=m.accuracy, low=m.low, high=m.high)
        for each, m in found
    ]
    title = f"How often the vote is right, by its share, {split}"
    note = "A share that could be read as a confidence would have its dot inside its own range."
    drawing = interval_chart(
        title, "Share right with 95 % interval for each range of the vote's share.", rows, label="right votes (95 % interval)"
    )
    cells = [
        (f"{_bin_name(each)} %", f"{m.correct:,}", f"{m.total:,}", percent(m.accuracy), f"{percent(m.low)} to {percent(m.high)}")
        for each, m in found
    ]
    return figure(title, drawing, note=note, numbers=table(("share", "right", "of", "right, %", "95 % interval"), cells))


def _bin_name(each: Bin) -> str:
    return f"{100 * each.low:.0f}-{100 * each.high:.0f}"


def _share(count: int, whole: int) -> str:
    return f"{100 * count / whole:.1f} %" if whole else "-"
