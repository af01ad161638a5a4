"""How a training went: curves over its rounds, and how the discriminator scored rationales of each source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import quantiles
from typing import Any

from qcrd_ray.records import ScoredAs, ScoredRationale
from qcrd_ray.run_folder import RunFolder
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.scores import read_scores

MOST_ROUNDS = 12  # boxes that fit side by side

Percentiles = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The rounds' rows of ``metrics.jsonl``, the result (None: it has not finished), and the scores that were kept by round."""

    objective: str
    rounds: list[dict[str, Any]]
    result: dict[str, Any] | None
    scores: dict[int, list[ScoredRationale]]

    def curve(self, *path: str) -> list[tuple[float, float]]:
        """(round counted from 1, value) of a nested number, where a round has it: ``curve("student", "l_pos")``."""
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
    """The 5th, 25th, 50th, 75th and 95th percentile of ``count`` scores; ``round`` (from 1) for a student's, None for the teacher's."""

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
    """The paper's figure 6: the teacher's positives and minority as the last round scored them, the student's negatives by round,
    at most :data:`MOST_ROUNDS` of them, evenly apart."""
    if not scores:
        return []
    last = max(scores)
    boxes = [_box([s.score for s in scores[last] if s.scored_as == kind], kind, None) for kind in ScoredAs if kind != ScoredAs.STUDENT]
    shown = sorted(scores)[::-1][:: ceil(len(scores) / MOST_ROUNDS)][::-1]  # the last one always
    boxes += [_box([s.score for s in scores[round] if s.scored_as == ScoredAs.STUDENT], ScoredAs.STUDENT, round + 1) for round in shown]
    return [box for box in boxes if box is not None]


def percentiles(values: Sequence[float]) -> Percentiles:
    """The 5th, 25th, 50th, 75th and 95th, interpolated; of one value, that value."""
    if len(values) == 1:
        return (values[0],) * 5
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[4], cuts[9], cuts[14], cuts[18]


def _box(values: list[float], scored_as: ScoredAs, round: int | None) -> ScoreBox | None:
    return ScoreBox(scored_as=scored_as, round=round, count=len(values), percentiles=percentiles(values)) if values else None
