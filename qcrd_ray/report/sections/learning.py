"""Loss curves, the discriminator's scores by source, and validation by round."""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.method.examples import Source
from qcrd_ray.records import ScoredAs
from qcrd_ray.report.axes import Axis, number, over, shares
from qcrd_ray.report.blocks import charts, figure, missing, section, table
from qcrd_ray.report.charts import Box, Series, box_chart, legend, line_chart
from qcrd_ray.report.facts.learning import Training, score_boxes
from qcrd_ray.report.markup import Markup, tag

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
        return section("learning", "Learning", missing("No training has finished a round yet: `qcrd train` does it."))
    others = [training for training in trainings if training is not own]
    unfinished = [training.objective for training in trainings if training.result is None]
    validation = [_validation(own, others, head) for head in ("rationale", "label")]
    judged = [_active(own), _chosen(own), _gains(own), _scores_by_round(own), _score_boxes(own), _aucs(own)]
    shown = [_losses(own), _prediction(own, others), *validation, *judged]
    return section(
        "learning",
        "Learning",
        missing(f"Not finished yet: {', '.join(unfinished)}. What follows are the rounds so far.") if unfinished else None,
        tag("p", _best(own)) if own.result else None,
        charts(*shown),
    )


def lines(title: str, series: Sequence[Series], y: Axis, *, note: str = "", reference: tuple[float, str] | None = None) -> Markup | None:
    """A figure of lines over rounds; None where none of the series has a point. Empty series are left out, colours stay."""
    series = [line for line in series if line.points]
    if not series:
        return None
    rounds = sorted({x for line in series for x, _ in line.points})
    x = over("round", [1, *rounds], whole=True)
    drawing = line_chart(title, f"{len(series)} lines over {len(rounds)} rounds.", series, x=x, y=y, reference=reference)
    values = [dict(line.points) for line in series]
    cells = [(f"{round:.0f}", *(y.told(each[round]) if round in each else "" for each in values)) for round in rounds]
    names = [line.name for line in series]
    return figure(title, drawing, legend=legend(names), note=note, numbers=table(("round", *names), cells))


def _best(training: Training) -> str:
    result = training.result
    assert result is not None
    return (
        f"The student kept is that of round {result['best_round'] + 1} of {result['rounds']}, the best on the validation questions by "
        f"{result['chosen_by']}; it saw {result['questions_seen']:,} questions in {result['steps']:,} steps."
    )


def _losses(own: Training) -> Markup | None:
    series = [Series(name=told, points=own.curve("student", name)) for name, told in _TERMS.items()]
    values = [y for line in series for _, y in line.points]
    note = "Means over a round. The contrastive method's negative term is at most 0: it falls as wrong rationales become less likely."
    return lines("Loss by round", series, over("loss, nats per token", [0.0, *values]), note=note)


def _prediction(own: Training, others: Sequence[Training]) -> Markup | None:
    if not others:
        return None
    series = [Series(name=each.objective, points=each.curve("student", "prediction")) for each in (own, *others)]
    values = [y for line in series for _, y in line.points]
    return lines("Loss of the label head, beside the baselines", series, over("loss, nats per token", [0.0, *values]))


def _active(own: Training) -> Markup | None:
    series = [
        Series(name="negatives with a gradient", points=own.curve("student", "active_fraction")),
        Series(name="student samples that are right", points=own.curve("negatives", "right_share")),
    ]
    note = (
        "A negative is active while the student finds it likelier than the margin delta allows; at 0 % the term teaches nothing any more."
    )
    return lines("Share of negatives that are active", series, shares("share"), note=note)


def _chosen(own: Training) -> Markup | None:
    made = {source: own.curve("negatives", f"from_{source}") for source in Source}
    made = {source: points for source, points in made.items() if any(count for _, count in points)}
    series = [Series(name=source, points=own.curve("student", f"negative_from_{source}")) for source in made]
    told = ", ".join(f"{number(points[-1][1])} {source}" for source, points in made.items())
    note = f"Of the negatives that the steps chose. In the last round there were to choose from: {told}."
    return lines("Chosen negatives by source", series, shares("share"), note=note)


def _gains(own: Training) -> Markup | None:
    series = [Series(name=f"{side}s", points=own.curve("student", f"{side}_gain")) for side in ("positive", "negative")]
    values = [y for line in series for _, y in line.points]
    note = "Means of a whole rationale's log-likelihood against the student at the start. A pair can be told apart while both fall."
    return lines("Log-likelihood gained since the start", series, over("nats", [0.0, *values]), note=note)


def _scores_by_round(own: Training) -> Markup | None:
    series = [Series(name=told, points=own.curve("student", name)) for name, told in zip(_MEANS, _SOURCES.values(), strict=True)]
    values = [y for line in series for _, y in line.points]
    return lines(
        "Mean quality score by source", series, over("score s", values), note="Of all rationales that the round's steps chose from."
    )


def _score_boxes(own: Training) -> Markup | None:
    boxes = score_boxes(own.scores)
    if not boxes:
        return (
            missing("This run kept no single scores, so their distribution cannot be shown: only their means, by round.")
            if _judged(own)
            else None
        )
    kinds = list(ScoredAs)
    names = {ScoredAs.TEACHER_POSITIVE: "pos.", ScoredAs.TEACHER_MINORITY: "min.", ScoredAs.CORRUPTED: "corr.", ScoredAs.EVOLVED: "ev."}
    drawn = [
        Box(name=names.get(box.scored_as, f"{box.round}"), kind=kinds.index(box.scored_as), percentiles=box.percentiles) for box in boxes
    ]
    told = list(_SOURCES.values())[: max(box.kind for box in drawn) + 1]
    title = "Quality scores by source"
    note = (
        "The paper's figure 6: teacher positives (pos.) and minority (min.) as the last round scored them, student negatives by round. "
        "Box: the middle half and the median; whiskers: 5th to 95th percentile; of a sample of questions."
    )
    y = over("score s", [value for box in boxes for value in (box.percentiles[0], box.percentiles[-1])])
    drawing = box_chart(title, f"{len(boxes)} distributions side by side.", drawn, x="teacher, then student by round", y=y)
    head = ("source", "round", "rationales", "5 %", "25 %", "median", "75 %", "95 %")
    cells = [
        (_SOURCES[box.scored_as], box.round or "last", f"{box.count:,}", *(f"{value:.3f}" for value in box.percentiles)) for box in boxes
    ]
    return figure(title, drawing, legend=legend(told, lines=False), note=note, numbers=table(head, cells))


def _judged(own: Training) -> bool:
    return bool(own.curve("student", "score_positive"))


def _aucs(own: Training) -> Markup | None:
    series = [Series(name=told, points=own.curve("discriminator", name)) for name, told in _AUCS.items()]
    values = [y for line in series for _, y in line.points]
    note = "The chance that the first scores above the second. Within a source it shows whether quality is judged, or only who wrote."
    axis = over("AUC", [0.4, 0.6, *values])
    return lines("How well scores tell right from wrong (AUC)", series, axis, note=note, reference=(0.5, "chance"))


def _validation(own: Training, others: Sequence[Training], head: str) -> Markup | None:
    series = [Series(name=each.objective, points=each.curve("validation", head)) for each in (own, *others)]
    values = [y for line in series for _, y in line.points]
    note = "The run's own objective and its baselines." if len([line for line in series if line.points]) > 1 else ""
    return lines(f"Right validation answers by {head}", series, over("right answers", [0.0, *values], share=True), note=note)
