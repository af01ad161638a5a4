"""How a training went: losses, validation and negatives by round, and the scores."""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.method.examples import Source
from qcrd_ray.report.axes import axis_over, number, share_axis
from qcrd_ray.report.charts import Series
from qcrd_ray.report.html import Markup, charts, missing, section, tag
from qcrd_ray.report.rounds import Training, round_figure
from qcrd_ray.report.scores import score_figures

_TERMS = {
    "loss": "all terms",
    "prediction": "label",
    "explanation": "rationale",
    "mutual_information": "between the heads",
    "l_pos": "positive term",
    "l_neg": "negative term",
    "pair": "pair term",
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
    negatives = [_active(own), _chosen(own), _gains(own)]
    figures = [
        *(_losses(own), _prediction(own, others), *validation),
        *(*negatives, *score_figures(own)),
    ]
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
        charts(*figures),
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
    series = [Series(name=name, points=own.curve("student", key)) for key, name in _TERMS.items()]
    values = [y for line in series for _, y in line.points]
    note = (
        "Means over a round. The contrastive method's negative term is at most 0: it falls as wrong"
        " rationales become less likely."
    )
    return round_figure(
        "Loss by round", series, axis_over("loss, nats per token", [0.0, *values]), note=note
    )


def _prediction(own: Training, others: Sequence[Training]) -> Markup | None:
    if not others:
        return None
    series = [
        Series(name=each.objective, points=each.curve("student", "prediction"))
        for each in (own, *others)
    ]
    values = [y for line in series for _, y in line.points]
    return round_figure(
        "Loss of the label head, beside the baselines",
        series,
        axis_over("loss, nats per token", [0.0, *values]),
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
    return round_figure(
        "Share of negatives that are active", series, share_axis("share"), note=note
    )


def _chosen(own: Training) -> Markup | None:
    counts = {source: own.curve("negatives", f"from_{source}") for source in Source}
    counts = {source: points for source, points in counts.items() if any(n for _, n in points)}
    series = [
        Series(name=source, points=own.curve("student", f"negative_from_{source}"))
        for source in counts
    ]
    last = ", ".join(f"{number(points[-1][1])} {source}" for source, points in counts.items())
    note = (
        "Of the negatives that the steps chose. In the last round there were to choose from:"
        f" {last}."
    )
    return round_figure("Chosen negatives by source", series, share_axis("share"), note=note)


def _gains(own: Training) -> Markup | None:
    series = [
        Series(name=f"{side}s", points=own.curve("student", f"{side}_gain"))
        for side in ("positive", "negative")
    ]
    values = [y for line in series for _, y in line.points]
    note = (
        "Means of a whole rationale's log-likelihood against the student at the start. The"
        " difference of a pair can grow while both fall."
    )
    return round_figure(
        "Log-likelihood gained since the start",
        series,
        axis_over("nats", [0.0, *values]),
        note=note,
    )


def _validation(own: Training, others: Sequence[Training], head: str) -> Markup | None:
    series = [
        Series(name=each.objective, points=each.curve("validation", head))
        for each in (own, *others)
    ]
    note = (
        "The run's own objective and its baselines."
        if len([line for line in series if line.points]) > 1
        else ""
    )
    return round_figure(
        f"Right validation answers by {head}",
        series,
        share_axis("right answers"),
        note=note,
    )
