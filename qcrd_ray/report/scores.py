"""The discriminator's scores by source and round, and how well they tell right from wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import quantiles

from qcrd_ray.data.records import ScoredAs, ScoredRationale
from qcrd_ray.method.examples import Source
from qcrd_ray.report.axes import axis_over
from qcrd_ray.report.charts import Box, Series, box_chart, legend
from qcrd_ray.report.html import Markup, figure, missing, table
from qcrd_ray.report.rounds import Training, round_figure

MOST_ROUNDS = 12  # boxes that fit side by side
_SOURCES = {
    ScoredAs.TEACHER_POSITIVE: "teacher positives",
    ScoredAs.TEACHER_MINORITY: "teacher minority",
    ScoredAs.STUDENT: "student samples",
    ScoredAs.CORRUPTED: "corrupted positives",
    ScoredAs.EVOLVED: "evolved positives",
}
_MEANS = ("score_positive", *(f"score_{source}_negative" for source in Source))
_FRESH_AUCS = {
    "auc_fresh_within_question": "student: right over wrong, within each question",
    "auc_fresh": "the same, over all questions",
}
_IN_SAMPLE_AUCS = {
    "auc_teacher": "teacher: positives over minority",
    "auc_teacher_within_question": "the same, within each question",
    "auc_student": "student: right over wrong",
    "auc_teacher_against_student": "teacher positives over student",
    "auc_corrupted": "teacher positives over corrupted",
    "auc_evolved": "teacher positives over evolved",
}
Percentiles = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBox:
    """The 5th, 25th, 50th, 75th and 95th percentile of ``count`` scores.

    ``round`` counts from 1; it is None for the teacher's rationales.
    """

    scored_as: ScoredAs
    round: int | None
    count: int
    percentiles: Percentiles


def score_boxes(scores: dict[int, list[ScoredRationale]]) -> list[ScoreBox]:
    """The boxes of the paper's figure 6.

    The teacher's rationales as the last round scored them, then the student's negatives of at most
    :data:`MOST_ROUNDS` rounds, evenly apart.
    """
    if not scores:
        return []
    last = max(scores)
    boxes = [
        _box([s.score for s in scores[last] if s.scored_as == kind], kind, None)
        for kind in ScoredAs
        if kind != ScoredAs.STUDENT
    ]
    shown = sorted(scores)[::-1][:: ceil(len(scores) / MOST_ROUNDS)][::-1]  # the last one always
    boxes += [
        _box(
            [s.score for s in scores[round] if s.scored_as == ScoredAs.STUDENT],
            ScoredAs.STUDENT,
            round + 1,
        )
        for round in shown
    ]
    return [box for box in boxes if box is not None]


def percentiles(values: Sequence[float]) -> Percentiles:
    """The 5th, 25th, 50th, 75th and 95th percentile, interpolated; of one value, that value."""
    if len(values) == 1:
        (value,) = values
        return value, value, value, value, value
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[4], cuts[9], cuts[14], cuts[18]


def _box(values: list[float], scored_as: ScoredAs, round: int | None) -> ScoreBox | None:
    return (
        ScoreBox(
            scored_as=scored_as, round=round, count=len(values), percentiles=percentiles(values)
        )
        if values
        else None
    )


# --- How they are drawn ---


def score_figures(training: Training) -> list[Markup | None]:
    """The figures of a training with a discriminator; None for each that it has no numbers for."""
    return [
        _means(training),
        _boxes(training),
        _aucs(
            training,
            "Right from wrong on held-out questions (AUC)",
            _FRESH_AUCS,
            "Fresh samples of the round's student on validation questions, which neither it nor the"
            " discriminator has learnt from; right or wrong by the gold answer. This is what the"
            " score is worth.",
        ),
        _aucs(
            training,
            "Right from wrong in-sample (AUC)",
            _IN_SAMPLE_AUCS,
            "On the training questions, which the discriminator has just learnt from: too good for"
            " any others. The chance that the first scores above the second. Within a source it"
            " shows whether the score is of quality, or only of who wrote.",
        ),
    ]


def _means(own: Training) -> Markup | None:
    series = [
        Series(name=source, points=own.curve("student", key))
        for key, source in zip(_MEANS, _SOURCES.values(), strict=True)
    ]
    values = [y for line in series for _, y in line.points]
    return round_figure(
        "Mean quality score by source",
        series,
        axis_over("score s", values),
        note="Of all rationales that the round's steps chose from.",
    )


def _boxes(own: Training) -> Markup | None:
    boxes = score_boxes(own.scores)
    if not boxes:
        return (
            missing(
                "This run kept no single scores, so their distribution cannot be shown: only their"
                " means, by round."
            )
            if own.curve("student", "score_positive")
            else None
        )
    kinds = list(ScoredAs)
    names = {
        ScoredAs.TEACHER_POSITIVE: "pos.",
        ScoredAs.TEACHER_MINORITY: "min.",
        ScoredAs.CORRUPTED: "corr.",
        ScoredAs.EVOLVED: "ev.",
    }
    drawn = [
        Box(
            name=names.get(box.scored_as, f"{box.round}"),
            kind=kinds.index(box.scored_as),
            percentiles=box.percentiles,
        )
        for box in boxes
    ]
    sources = list(_SOURCES.values())[: max(box.kind for box in drawn) + 1]
    title = "Quality scores by source"
    note = (
        "The paper's figure 6: teacher positives (pos.) and minority (min.) as the last round"
        " scored them, student negatives by round. Box: the middle half and the median; whiskers:"
        " 5th to 95th percentile; of a sample of questions."
    )
    y = axis_over(
        "score s", [value for box in boxes for value in (box.percentiles[0], box.percentiles[-1])]
    )
    drawing = box_chart(
        title,
        f"{len(boxes)} distributions side by side.",
        drawn,
        x="teacher, then student by round",
        y=y,
    )
    head = ("source", "round", "rationales", "5 %", "25 %", "median", "75 %", "95 %")
    cells = [
        (
            _SOURCES[box.scored_as],
            box.round or "last",
            f"{box.count:,}",
            *(f"{value:.3f}" for value in box.percentiles),
        )
        for box in boxes
    ]
    return figure(
        title, drawing, legend=legend(sources, lines=False), note=note, numbers=table(head, cells)
    )


def _aucs(own: Training, title: str, names: dict[str, str], note: str) -> Markup | None:
    series = [
        Series(name=name, points=own.curve("discriminator", key)) for key, name in names.items()
    ]
    values = [y for line in series for _, y in line.points]
    axis = axis_over("AUC", [0.4, 0.6, *values])
    return round_figure(title, series, axis, note=note, reference=(0.5, "chance"))
