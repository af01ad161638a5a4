"""The accuracy section: what was measured on the test splits.

Accuracies, models compared question by question, and how far the two heads agree.
"""

from __future__ import annotations

from qcrd_ray.report.charts import Interval, interval_chart
from qcrd_ray.report.html import (
    Markup,
    charts,
    facts,
    figure,
    join,
    missing,
    model_name,
    p_text,
    section,
    table,
    tag,
)
from qcrd_ray.report.measured import Agreement, Comparison, Measured, agreements, comparisons
from qcrd_ray.runs.results import (
    WORDS,
    ceiling_notes,
    columns,
    is_ceiling,
    table_rows,
)

_MODELS = {
    "student": (
        "the trained student; by label: it names the answer at once; by rationale: it reasons"
        " first; by a vote of n: n sampled rationales, plain or weighed by a judge"
    ),
    "finetune": "a baseline: the same start, trained on questions and labels alone",
    "single_task": "a baseline: the same start, trained to write one rationale and then the label",
    "dss": "a baseline: Distilling Step-by-Step, trained on labels and rationales",
    "mi": "a baseline: Distilling Step-by-Step with mutual information between the heads",
    "student base": "the student before this training",
}


def measured_section(measured: Measured | None) -> Markup:
    """The section on accuracy, which says so where nothing has been measured."""
    if measured is None:
        return section(
            "accuracy",
            "Accuracy",
            missing("Nothing has been measured on the test splits yet: `qcrd evaluate` does it."),
        )
    names = {row["name"] for row in measured.results["rows"]}
    notes = list(measured.results["notes"])
    if "student base" not in names:
        notes.append("there is no base here: evaluate.base measures the student before training")
    if not measured.baselines:
        notes.append(
            "there is no baseline here: evaluate.baselines: [finetune] trains and measures one"
        )
    compared, heads = comparisons(measured), agreements(measured)
    return section(
        "accuracy",
        "Accuracy",
        facts([(name, text) for name, text in _MODELS.items() if name in names]),
        tag(
            "p",
            "What cannot be read as an answer counts as wrong. The test splits chose nothing:"
            " neither checkpoint nor setting.",
        ),
        *(tag("p", f"{note}.") for note in ceiling_notes(measured.results["rows"])),
        *(missing(f"{note[:1].upper()}{note[1:]}.") for note in notes),
        charts(*(_intervals(measured, split) for split in measured.splits)),
        _votes(measured) if measured.samples else None,
        _paired(compared) if compared else None,
        _agreement(heads) if heads else None,
    )


def _intervals(measured: Measured, split: str) -> Markup:
    rows = [row for row in measured.results["rows"] if row["split"] == split]
    drawn = [
        Interval(
            name=model_name(row["name"], row["head"]),
            kind=_CEILING if is_ceiling(row["head"]) else _kind(row["name"]),
            value=row["accuracy"],
            low=row["low"],
            high=row["high"],
        )
        for row in rows
        if not row["head"].startswith(f"{measured.judged_vote} (")  # another judge's
    ]
    title = f"Right answers on {split}, with 95\u00a0% intervals"
    drawing = interval_chart(
        title,
        "A dot and its Wilson interval for each model and head.",
        drawn,
        label="right answers (Wilson's 95 % interval)",
    )
    counts = measured.results["splits"].get(split)
    note = f"{rows[0]['total']:,} questions" + (
        f", {counts['without_answer']:,} more have no gold answer"
        if counts and counts["without_answer"]
        else ""
    )
    cells = table_rows(rows)
    return figure(
        title,
        drawing,
        note=f"{note}.",
        numbers=table(columns(rows)[1:], [row[1:] for row in cells], words=WORDS - 1),
    )


def _votes(measured: Measured) -> Markup:
    rows = [
        row
        for row in measured.results["rows"]
        if row["name"] == "student" and row["head"] != "label"
    ]
    note = (
        "Tokens are generated ones of a question, over all its samples; milliseconds (ms) are a"
        " question's share of its batch. All votes are of the same samples, so their time is one:"
        " sampling them, and reading what the judges see of them."
    )
    return join(
        tag("h3", "Votes of the student's samples beside its greedy rationale, with their cost"),
        tag("p", note),
        table(
            [name for name in columns(rows) if name != "who"],
            [(split, *cells) for split, _, *cells in table_rows(rows)],
            caption="Points and cost",
            words=WORDS - 1,
        ),
    )


_CEILING = 5


def _kind(name: str) -> int:
    """The marker and colour of a model: student, baseline, base, teacher's vote, its one sample."""
    if name.startswith("teacher"):
        return 3 if name.endswith("voted") else 4
    return {"student": 0, "student base": 2}.get(name, 1)


def _paired(compared: list[Comparison]) -> Markup:
    rows = [
        (
            each.split,
            model_name(*each.first),
            model_name(*each.second),
            each.counts.both,
            each.counts.only_first,
            each.counts.only_second,
            each.counts.neither,
            p_text(each.counts.p_value),
        )
        for each in compared
    ]
    head = ("split", "first", "second", "both right", "only first", "only second", "neither", "p")
    note = (
        "The same questions, answered by two models. p is McNemar's exact test on the questions"
        " that only one of them got: how likely so uneven a split would be if both were equally"
        " good. It knows one training of each, not another seed's, and no p is corrected for"
        " looking at several."
    )
    return join(
        tag("h3", "Compared question by question"),
        tag("p", note),
        table(head, rows, caption="Questions by who got them right", words=3),
    )


def _agreement(agreed: list[Agreement]) -> Markup:
    rows = [
        (
            each.name,
            each.split,
            each.total,
            f"{each.alike} ({100 * each.alike / each.total:.1f} %)",
            each.alike_right,
            each.only_rationale_right,
            each.only_label_right,
        )
        for each in agreed
    ]
    head = (
        "model",
        "split",
        "questions",
        "answered alike",
        "of these right",
        "only the rationale right",
        "only the label right",
    )
    return join(
        tag("h3", "Do the two heads agree?"),
        table(
            head,
            rows,
            caption="The label head and the rationale head on the same questions",
            words=2,
        ),
    )
