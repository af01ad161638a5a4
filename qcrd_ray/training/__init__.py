"""Training: Ray Train and DeepSpeed around :mod:`qcrd_ray.method`.

Rationale sets in, the best student by validation out. It may import inference, models, tasks,
cluster, run, data, method and recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.results import JudgeTraining, RoundMetrics, TrainingResult

if TYPE_CHECKING:
    from pathlib import Path

    from qcrd_ray.recipe import ObjectiveName, Recipe
    from qcrd_ray.runs.folder import RunFolder

OnRounds = Callable[[Sequence[RoundMetrics]], None]


def ignore(rows: Sequence[RoundMetrics]) -> None:
    """The OnRounds that does nothing."""


def train(
    recipe: Recipe,
    folder: RunFolder,
    *,
    objective: ObjectiveName,
    report: Report = no_progress,
    on_rounds: OnRounds = ignore,
) -> TrainingResult:
    """Train a student in a run folder: see :func:`qcrd_ray.training.trainer.train`."""
    # Imported here, so that samplers and workers, which import modules of this package, do not load
    # the driver's half of Ray Train.
    from qcrd_ray.training import trainer

    return trainer.train(recipe, folder, objective=objective, report=report, on_rounds=on_rounds)


def train_judges(
    recipe: Recipe, folder: RunFolder, *, home: Path, report: Report = no_progress
) -> JudgeTraining:
    """Train a finished student's judges: see :func:`qcrd_ray.training.judges.train_judges`."""
    from qcrd_ray.training import judges

    return judges.train_judges(recipe, folder, home=home, report=report)


def self_train(
    recipe: Recipe,
    folder: RunFolder,
    *,
    report: Report = no_progress,
    on_rounds: OnRounds = ignore,
) -> TrainingResult:
    """Train on the student's own samples: :func:`qcrd_ray.training.self_training.self_train`."""
    from qcrd_ray.training import self_training

    return self_training.self_train(recipe, folder, report=report, on_rounds=on_rounds)
