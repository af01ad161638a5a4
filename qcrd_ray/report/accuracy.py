"""The accuracy section: what was measured on the test splits.

Accuracies, models compared question by question, and how far the two heads agree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow.parquet as pq

from qcrd_ray.evaluation import Paired, pair
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
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.results import COLUMNS, ResultRow, Results, table_rows

Key = tuple[str, str, str]  # name, head, split
_MODELS = {
    "student": (
        "the trained student; by label: it names the answer at once; by rationale: it reasons first"
    ),
    "finetune": "a baseline: the same start, trained on questions and labels alone",
    "single_task": "a baseline: the same start, trained to write one rationale and then the label",
    "dss": "a baseline: Distilling Step-by-Step, trained on labels and rationales",
    "mi": "a baseline: Distilling Step-by-Step with mutual information between the heads",
    "student base": "the student before this training",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """One model's answer to one question. ``text`` is None for a vote."""

    answer: str | None
    gold: str
    right: bool
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an evaluation left in the run folder.

    ``results`` is results.json. ``answers`` holds every prediction: (name, head, split) -> question
    id -> answer.
    """

    results: Results
    answers: dict[Key, dict[str, GivenAnswer]]

    @property
    def splits(self) -> list[str]:
        """The test splits that were measured."""
        return list(dict.fromkeys(row["split"] for row in self.results["rows"]))

    @property
    def baselines(self) -> list[str]:
        """The objectives that were trained and measured beside the run's own."""
        names = dict.fromkeys(row["name"] for row in self.results["rows"])
        return [name for name in names if not name.startswith(("student", "teacher"))]

    def heads(self, name: str) -> list[str]:
        """The heads that a model was measured by."""
        return list(
            dict.fromkeys(row["head"] for row in self.results["rows"] if row["name"] == name)
        )

    def row(self, name: str, head: str, split: str) -> ResultRow | None:
        """A row of the results, None where that was not measured."""
        wanted = (name, head, split)
        return next(
            (
                row
                for row in self.results["rows"]
                if (row["name"], row["head"], row["split"]) == wanted
            ),
            None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models (name, head) on one split."""

    split: str
    first: tuple[str, str]
    second: tuple[str, str]
    counts: Paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many questions both heads of a model answered alike, and which head was right."""

    name: str
    split: str
    total: int
    alike: int
    alike_right: int
    only_label_right: int
    only_rationale_right: int


def read_measured(folder: RunFolder) -> Measured | None:
    """The evaluation, None where there has been none."""
    results, predictions = (
        folder.evaluation / "results.json",
        folder.evaluation / "predictions.parquet",
    )
    if not (results.exists() and predictions.exists()):
        return None
    answers: dict[Key, dict[str, GivenAnswer]] = {}
    columns = ["name", "head", "split", "question_id", "gold", "text", "answer", "right"]
    for row in pq.read_table(predictions, columns=columns).to_pylist():
        answer = GivenAnswer(
            answer=row["answer"], gold=row["gold"], right=row["right"], text=row["text"]
        )
        answers.setdefault((row["name"], row["head"], row["split"]), {})[row["question_id"]] = (
            answer
        )
    return Measured(results=json.loads(results.read_text()), answers=answers)


def opponents(measured: Measured) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """The pairs (student's head, opponent's head) to compare, each as (name, head).

    The opponents are the same head of every baseline and of the base (a baseline's only head where
    it has one), and the student's other head.
    """
    pairs = []
    for name in (*measured.baselines, "student base"):
        theirs = measured.heads(name)
        for head in measured.heads("student"):
            if theirs:
                pairs.append((("student", head), (name, head if head in theirs else theirs[0])))
    if len(measured.heads("student")) > 1:
        pairs.append((("student", "rationale"), ("student", "label")))
    return pairs


def comparisons(measured: Measured) -> list[Comparison]:
    """All of :func:`opponents`, on every split that has both."""
    found = []
    for split in measured.splits:
        for first, second in opponents(measured):
            one, other = (
                measured.answers.get((*first, split)),
                measured.answers.get((*second, split)),
            )
            if one and other:
                counts = pair(
                    {id: a.right for id, a in one.items()}, {id: a.right for id, a in other.items()}
                )
                found.append(Comparison(split=split, first=first, second=second, counts=counts))
    return found


def agreements(measured: Measured) -> list[Agreement]:
    """The agreement of each model that has both heads. Two missing answers do not agree."""
    found = []
    for name, head, split in measured.answers:
        if head != "label" or (name, "rationale", split) not in measured.answers:
            continue
        label, rationale = (
            measured.answers[name, "label", split],
            measured.answers[name, "rationale", split],
        )
        pairs = [(answer, rationale[id]) for id, answer in label.items()]
        alike = [(a, b) for a, b in pairs if a.answer is not None and a.answer == b.answer]
        found.append(
            Agreement(
                name=name,
                split=split,
                total=len(pairs),
                alike=len(alike),
                alike_right=sum(a.right for a, _ in alike),
                only_label_right=sum(a.right and not b.right for a, b in pairs),
                only_rationale_right=sum(b.right and not a.right for a, b in pairs),
            )
        )
    return found


# --- How it is drawn ---


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
        *(missing(f"{note[:1].upper()}{note[1:]}.") for note in notes),
        charts(*(_intervals(measured, split) for split in measured.splits)),
        _paired(compared) if compared else None,
        _agreement(heads) if heads else None,
    )


def _intervals(measured: Measured, split: str) -> Markup:
    rows = [row for row in measured.results["rows"] if row["split"] == split]
    drawn = [
        Interval(
            name=model_name(row["name"], row["head"]),
            kind=_kind(row["name"]),
            value=row["accuracy"],
            low=row["low"],
            high=row["high"],
        )
        for row in rows
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
        numbers=table(COLUMNS[1:], [row[1:] for row in cells], words=2),
    )


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
