"""How a training went: curves over its rounds, and how the discriminator scored rationales of each
source.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import quantiles
from typing import Any

from qcrd_ray.data.records import ScoredAs, ScoredRationale
from qcrd_ray.method.examples import Source
from qcrd_ray.report.axes import Axis, number, over, shares
from qcrd_ray.report.charts import Box, Series, box_chart, legend, line_chart
from qcrd_ray.report.html import Markup, charts, figure, missing, section, table, tag
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.results import RoundMetrics, TrainingResult
from qcrd_ray.training.metrics import read_metrics, read_scores

MOST_ROUNDS = 12  # boxes that fit side by side

Percentiles = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The rounds' rows of ``metrics.jsonl``, the result (None: it has not finished), and the scores
    that were kept by round.
    """

    objective: str
    rounds: list[RoundMetrics]
    result: TrainingResult | None
    scores: dict[int, list[ScoredRationale]]

    def curve(self, *path: str) -> list[tuple[float, float]]:
        """(round counted from 1, value) of a nested number, where a round has it:
        ``curve("student", "l_pos")``.
        """
        points = []
        for row in self.rounds:
            value: Any = row
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                points.append((row["round"] + 1, float(value)))
        return points


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBox:
    """The 5th, 25th, 50th, 75th and 95th percentile of ``count`` scores; ``round`` (from 1) for a
    student's, None for the teacher's.
    """

    scored_as: ScoredAs
    round: int | None
    count: int
    percentiles: Percentiles


def read_training(folder: RunFolder, objective: str) -> Training | None:
    """A training, None where it has not finished a round."""
    home = folder.training(objective)
    rounds = read_metrics(home)
    if not rounds:
        return None
    result = home / "result.json"
    return Training(
        objective=objective,
        rounds=rounds,
        result=json.loads(result.read_text()) if result.exists() else None,
        scores=read_scores(home),
    )


def score_boxes(scores: dict[int, list[ScoredRationale]]) -> list[ScoreBox]:
    """The paper's figure 6: the teacher's positives and minority as the last round scored them, the
    student's negatives by round,
    at most :data:`MOST_ROUNDS` of them, evenly apart.
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
    """The 5th, 25th, 50th, 75th and 95th, interpolated; of one value, that value."""
    if len(values) == 1:
        return (values[0],) * 5
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


# MERGED report.sections.learning: Loss curves, the discriminator's scores by source, and validation
# by round.

_SOURCES = {
    ScoredAs.TEACHER_POSITIVE: "teacher positives",
    ScoredAs.TEACHER_MINORITY: "teacher minority",
    ScoredAs.STUDENT: "student samples",
    ScoredAs.CORRUPTED: "corrupted positives",
    ScoredAs.EVOLVED: "evolved positives",
}
_TERMS = {
    "loss": "all terms",
    "prediction": "label",
    "explanation": "rationale",
    "mutual_information": "between the heads",
    "l_pos": "positive term",
    "l_neg": "negative term",
    "pair": "pair term",
}
_MEANS = ("score_positive", *(f"score_{source}_negative" for source in Source))
_AUCS = {
    "auc_teacher": "teacher: positives over minority",
    "auc_teacher_within_question": "the same, within each question",
    "auc_student": "student: right over wrong",
    "auc_teacher_against_student": "teacher positives over student",
    "auc_corrupted": "teacher positives over corrupted",
    "auc_evolved": "teacher positives over evolved",
}


def learning_section(trainings: Sequence[Training], name: str) -> Markup:
    """All curves of the training named ``name``, beside those of the baselines."""
    own = next((training for training in trainings if training.objective == name), None)
    if own is None:
        return section(
            "learning",
            "Learning",
            missing("No training has finished a round yet: `qcrd train` does it."),
        )
    others = [training for training in trainings if training is not own]
    unfinished = [training.objective for training in trainings if training.result is None]
    validation = [_validation(own, others, head) for head in ("rationale", "label")]
    judged = [
        _active(own),
        _chosen(own),
        _gains(own),
        _scores_by_round(own),
        _score_boxes(own),
        _aucs(own),
    ]
    shown = [_losses(own), _prediction(own, others), *validation, *judged]
    return section(
        "learning",
        "Learning",
        (
            missing(
                f"Not finished yet: {', '.join(unfinished)}. What follows are the rounds so far."
            )
            if unfinished
            else None
        ),
        tag("p", _best(own)) if own.result else None,
        charts(*shown),
    )


def lines(
    title: str,
    series: Sequence[Series],
    y: Axis,
    *,
    note: str = "",
    reference: tuple[float, str] | None = None,
) -> Markup | None:
    """A figure of lines over rounds; None where none of the series has a point. Empty series are
    left out, colours stay.
    """
    series = [line for line in series if line.points]
    if not series:
        return None
    rounds = sorted({x for line in series for x, _ in line.points})
    x = over("round", [1, *rounds], whole=True)
    drawing = line_chart(
        title,
        f"{len(series)} lines over {len(rounds)} rounds.",
        series,
        x=x,
        y=y,
        reference=reference,
    )
    values = [dict(line.points) for line in series]
    cells = [
        (f"{round:.0f}", *(y.told(each[round]) if round in each else "" for each in values))
        for round in rounds
    ]
    names = [line.name for line in series]
    return figure(
        title, drawing, legend=legend(names), note=note, numbers=table(("round", *names), cells)
    )


def _best(training: Training) -> str:
    result = training.result
    assert result is not None
    return (
        f"The student kept is that of round {result['best_round'] + 1} of {result['rounds']}, the"
        f" best on the validation questions by {result['chosen_by']}; it saw"
        f" {result['questions_seen']:,} questions in {result['steps']:,} steps."
    )


def _losses(own: Training) -> Markup | None:
    series = [Series(name=told, points=own.curve("student", name)) for name, told in _TERMS.items()]
    values = [y for line in series for _, y in line.points]
    note = (
        "Means over a round. The contrastive method's negative term is at most 0: it falls as wrong"
        " rationales become less likely."
    )
    return lines("Loss by round", series, over("loss, nats per token", [0.0, *values]), note=note)


def _prediction(own: Training, others: Sequence[Training]) -> Markup | None:
    if not others:
        return None
    series = [
        Series(name=each.objective, points=each.curve("student", "prediction"))
        for each in (own, *others)
    ]
    values = [y for line in series for _, y in line.points]
    return lines(
        "Loss of the label head, beside the baselines",
        series,
        over("loss, nats per token", [0.0, *values]),
    )


def _active(own: Training) -> Markup | None:
    series = [
        Series(name="negatives with a gradient", points=own.curve("student", "active_fraction")),
        Series(name="student samples that are right", points=own.curve("negatives", "right_share")),
    ]
    note = (
        "A negative is active while the student finds it likelier than the margin delta allows; at"
        " 0 % the term teaches nothing any more."
    )
    return lines("Share of negatives that are active", series, shares("share"), note=note)


def _chosen(own: Training) -> Markup | None:
    made = {source: own.curve("negatives", f"from_{source}") for source in Source}
    made = {source: points for source, points in made.items() if any(count for _, count in points)}
    series = [
        Series(name=source, points=own.curve("student", f"negative_from_{source}"))
        for source in made
    ]
    told = ", ".join(f"{number(points[-1][1])} {source}" for source, points in made.items())
    note = (
        "Of the negatives that the steps chose. In the last round there were to choose from:"
        f" {told}."
    )
    return lines("Chosen negatives by source", series, shares("share"), note=note)


def _gains(own: Training) -> Markup | None:
    series = [
        Series(name=f"{side}s", points=own.curve("student", f"{side}_gain"))
        for side in ("positive", "negative")
    ]
    values = [y for line in series for _, y in line.points]
    note = (
        "Means of a whole rationale's log-likelihood against the student at the start. A pair can"
        " be told apart while both fall."
    )
    return lines(
        "Log-likelihood gained since the start", series, over("nats", [0.0, *values]), note=note
    )


def _scores_by_round(own: Training) -> Markup | None:
    series = [
        Series(name=told, points=own.curve("student", name))
        for name, told in zip(_MEANS, _SOURCES.values(), strict=True)
    ]
    values = [y for line in series for _, y in line.points]
    return lines(
        "Mean quality score by source",
        series,
        over("score s", values),
        note="Of all rationales that the round's steps chose from.",
    )


def _score_boxes(own: Training) -> Markup | None:
    boxes = score_boxes(own.scores)
    if not boxes:
        return (
            missing(
                "This run kept no single scores, so their distribution cannot be shown: only their"
                " means, by round."
            )
            if _judged(own)
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
    told = list(_SOURCES.values())[: max(box.kind for box in drawn) + 1]
    title = "Quality scores by source"
    note = (
        "The paper's figure 6: teacher positives (pos.) and minority (min.) as the last round"
        " scored them, student negatives by round. Box: the middle half and the median; whiskers:"
        " 5th to 95th percentile; of a sample of questions."
    )
    y = over(
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
        title, drawing, legend=legend(told, lines=False), note=note, numbers=table(head, cells)
    )


def _judged(own: Training) -> bool:
    return bool(own.curve("student", "score_positive"))


def _aucs(own: Training) -> Markup | None:
    series = [
        Series(name=told, points=own.curve("discriminator", name)) for name, told in _AUCS.items()
    ]
    values = [y for line in series for _, y in line.points]
    note = (
        "The chance that the first scores above the second. Within a source it shows whether"
        " quality is judged, or only who wrote."
    )
    axis = over("AUC", [0.4, 0.6, *values])
    return lines(
        "How well scores tell right from wrong (AUC)",
        series,
        axis,
        note=note,
        reference=(0.5, "chance"),
    )


def _validation(own: Training, others: Sequence[Training], head: str) -> Markup | None:
    series = [
        Series(name=each.objective, points=each.curve("validation", head))
        for each in (own, *others)
    ]
    values = [y for line in series for _, y in line.points]
    note = (
        "The run's own objective and its baselines."
        if len([line for line in series if line.points]) > 1
        else ""
    )
    return lines(
        f"Right validation answers by {head}",
        series,
        over("right answers", [0.0, *values], share=True),
        note=note,
    )
