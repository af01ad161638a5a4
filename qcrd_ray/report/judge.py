"""The judge's section: how it ranks fresh samples, and whether its confidence can be believed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray.evaluation.votes import JUDGE, vote_name
from qcrd_ray.method.ranking import Accuracy, JudgeQuality, accuracy
from qcrd_ray.recipe import Recipe
from qcrd_ray.report.axes import Axis, number, share_axis, ticks
from qcrd_ray.report.charts import Series, legend, line_chart
from qcrd_ray.report.html import Markup, charts, facts, figure, missing, section, table, tag
from qcrd_ray.report.measured import GivenAnswer, Measured
from qcrd_ray.runs.judged_votes import EVIDENCE, is_no_judge, judge_sentence
from qcrd_ray.runs.results import JudgeTraining
from qcrd_ray.training.judges import QUALITY

BINS = 10  # as those of the expected calibration error


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The votes whose confidence lies between ``low`` and ``high``.

    ``confidence`` is their mean, ``right`` the share of them that are right.
    """

    low: float
    high: float
    confidence: float
    right: Accuracy


def reliability(answers: Iterable[GivenAnswer]) -> list[ReliabilityBin]:
    """Votes by confidence, in :data:`BINS` bins of equal width; empty bins are left out."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for answer in answers:
        if answer.confidence is not None:
            at = min(int(answer.confidence * BINS), BINS - 1)
            members.setdefault(at, []).append((answer.confidence, answer.right))
    return [
        ReliabilityBin(
            low=at / BINS,
            high=(at + 1) / BINS,
            confidence=sum(confidence for confidence, _ in each) / len(each),
            right=accuracy(sum(right for _, right in each), len(each)),
        )
        for at, each in sorted(members.items())
    ]


def read_judges(training: Path) -> JudgeTraining | None:
    """What the judges of the training in a folder are worth there, None before they are."""
    file = training / "judges" / QUALITY
    return json.loads(file.read_text()) if file.exists() else None


# --- How it is drawn ---


def judge_section(
    recipe: Recipe, trained: JudgeTraining | None, measured: Measured | None
) -> Markup | None:
    """The section on the judge; None where the recipe has none."""
    if not recipe.judge.samples:
        return None
    if trained is None:
        return section("judge", "The judge", missing("No judge has been trained yet."))
    splits = measured.results.get("judges", {}).get("student", {}) if measured else {}
    return section(
        "judge",
        "The judge",
        tag(
            "p",
            f"The student samples {recipe.judge.samples} rationales at temperature"
            f" {recipe.judge.temperature:g}; each votes for its answer with a weight from the"
            " judge, which reads a few numbers on each sample and no text. It learnt from right and"
            " wrong samples for questions that the student was not trained on.",
        ),
        *(_verdict(split, judges[JUDGE]) for split, judges in splits.items()),
        facts(
            [
                *(
                    (name, "reads " + ", ".join(EVIDENCE[each] for each in inputs))
                    for name, inputs in recipe.judge.all_inputs.items()
                ),
                (
                    "trained on",
                    f"{number(trained['questions'])}"
                    f" {'training' if recipe.judge.share else 'validation'} questions of"
                    f" {trained['samples']} samples each",
                ),
            ]
        ),
        _qualities(recipe, trained, splits, measured),
        charts(*(_reliability(measured, split) for split in splits)) if measured else None,
    )


def _verdict(split: str, quality: JudgeQuality) -> Markup:
    sentence = judge_sentence(quality, split=split)
    return missing(sentence) if is_no_judge(quality) else tag("p", sentence)


def _qualities(
    recipe: Recipe,
    trained: JudgeTraining,
    splits: dict[str, dict[str, JudgeQuality]],
    measured: Measured | None,
) -> Markup:
    """Every judge on its own questions and on each test split."""
    rows = []
    for where, judges in {"its own, cross-fitted": trained["judges"], **splits}.items():
        for name, quality in judges.items():
            head = vote_name("judged vote", recipe.judge.samples, name)
            row = measured.row("student", head, where) if measured else None
            rows.append(
                (
                    where,
                    name,
                    _number(quality["auc_within_question"]),
                    quality["two_sided"],
                    f"{quality['spread']:.3f}",
                    _number(quality["calibration_error"]),
                    f"{100 * row['accuracy']:.1f}" if row else "",
                )
            )
    head = (
        "questions",
        "judge",
        "AUC within question",
        "questions with both",
        "spread",
        "calibration error",
        "vote, % right",
    )
    caption = "Each judge on its own questions, and on fresh ones"
    note = (
        "AUC: the chance that a right sample scores above a wrong one of the same question; 0.5 is"
        " a coin. Spread: the standard deviation of the scores. On its own questions each judge is"
        " one that was trained on four fifths of them and read on the others. Test samples are"
        " fresh: neither student nor judge has seen their questions. The expected calibration error"
        " is the mean distance of a vote's confidence from the share of such votes that are right,"
        f" in {BINS} bins."
    )
    return tag("div", table(head, rows, caption=caption, words=2), tag("p", note, class_="muted"))


def _reliability(measured: Measured, split: str) -> Markup | None:
    heads = {
        measured.judged_vote: "judged vote: calibrated confidence",
        vote_name("vote", measured.samples): "plain vote: share of the samples",
    }
    found = {
        name: reliability(measured.answers.get(("student", head, split), {}).values())
        for head, name in heads.items()
        if head is not None
    }
    if not any(found.values()):
        return None
    series = [
        Series(name=name, points=[(100 * each.confidence, each.right.accuracy) for each in bins])
        for name, bins in found.items()
    ]
    series.append(Series(name="as it should be", points=[(0.0, 0.0), (100.0, 1.0)]))
    title = f"Can the confidence be believed? ({split})"
    drawing = line_chart(
        title,
        "The share of right votes by their confidence; on the diagonal both are the same.",
        series,
        x=Axis(label="confidence of the vote, %", ticks=ticks(0.0, 100.0)),
        y=share_axis("right answers"),
    )
    cells = [
        (
            name.partition(":")[0],
            f"{100 * each.low:.0f} to {100 * each.high:.0f} %",
            each.right.total,
            f"{100 * each.confidence:.1f}",
            f"{100 * each.right.accuracy:.1f}",
            f"{100 * each.right.low:.1f} - {100 * each.right.high:.1f}",
        )
        for name, bins in found.items()
        for each in bins
    ]
    head = ("vote", "confidence", "questions", "mean, %", "right, %", "95 % interval")
    return figure(
        title,
        drawing,
        legend=legend([line.name for line in series]),
        note="Below the diagonal a vote is surer than it is right. A point of few questions is"
        " worth little: the table has their counts.",
        numbers=table(head, cells, words=2),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
