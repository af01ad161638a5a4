"""A training's rounds: their numbers, and how one of them is drawn as a curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcrd_ray.data.records import ScoredRationale
from qcrd_ray.report.axes import Axis, axis_over
from qcrd_ray.report.charts import Series, legend, line_chart
from qcrd_ray.report.html import Markup, figure, table
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.results import RoundMetrics, TrainingResult
from qcrd_ray.training.metrics import read_metrics, read_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The training of one objective.

    ``rounds`` are its rows of ``metrics.jsonl``, ``result`` is None while it has not finished, and
    ``scores`` are the discriminator's scores that were kept, by round.
    """

    objective: str
    rounds: list[RoundMetrics]
    result: TrainingResult | None
    scores: dict[int, list[ScoredRationale]]

    def curve(self, *path: str) -> list[tuple[float, float]]:
        """A nested number such as ``curve("student", "l_pos")``, as (round from 1, value).

        Rounds that do not have it are left out.
        """
        points = []
        for row in self.rounds:
            value: Any = row
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                points.append((row["round"] + 1, float(value)))
        return points


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


def round_figure(
    title: str,
    series: Sequence[Series],
    y: Axis,
    *,
    note: str = "",
    reference: tuple[float, str] | None = None,
) -> Markup | None:
    """A figure of lines over rounds, without empty series; None where all series are empty."""
    series = [line for line in series if line.points]
    if not series:
        return None
    rounds = sorted({x for line in series for x, _ in line.points})
    x = axis_over("round", [1, *rounds], whole=True)
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
        (f"{round:.0f}", *(y.exact(each[round]) if round in each else "" for each in values))
        for round in rounds
    ]
    names = [line.name for line in series]
    return figure(
        title, drawing, legend=legend(names), note=note, numbers=table(("round", *names), cells)
    )
