"""What one training is: the recipe, the objective, and where its files lie. Made on the driver,
sent to every worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qcrd_ray.method.objectives import OBJECTIVES, Objective, ObjectiveConfig, build_objective
from qcrd_ray.recipe import ObjectiveName, Recipe


def objectives_of(recipe: Recipe) -> list[type[Objective]]:
    """The objectives that a run trains for, one after another: the recipe's own and its
    baselines.
    """
    return [
        OBJECTIVES[name]
        for name in dict.fromkeys((recipe.objective.name, *recipe.evaluate.baselines))
    ]


def uses_discriminator(recipe: Recipe, objective: type[Objective]) -> bool:
    """Whether a discriminator takes part in training for ``objective``."""
    return objective.needs_weights and recipe.objective.weights != "none"


def bundles(recipe: Recipe, objectives: Iterable[type[Objective]]) -> list[dict[str, float]]:
    """What training for any of ``objectives`` takes of the cluster at the same time: a bundle per
    worker and, where one of them uses negatives that the student writes, a bundle per sampler.
    """
    samples = recipe.negatives.student and any(each.uses_negatives for each in objectives)
    samplers = recipe.negatives.samplers if samples else 0
    workers = [recipe.train.worker.bundle] * recipe.train.workers
    return workers + [recipe.negatives.sampler.bundle] * samplers


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """``folder`` is where this training writes; ``home`` holds ``start`` and ``data``, which serve
    all the trainings in it.
    """

    recipe: Recipe
    objective_name: ObjectiveName
    home: Path
    folder: Path
    validation: Path  # questions/validation.parquet
    manifest: dict[str, Any]  # of the prepared data

    @property
    def start(self) -> Path:
        return self.home / "start"

    @property
    def data(self) -> Path:
        return self.home / "data" / "train.arrow"

    @property
    def uses_discriminator(self) -> bool:
        """Whether a discriminator takes part."""
        return uses_discriminator(self.recipe, OBJECTIVES[self.objective_name])

    @property
    def samples_negatives(self) -> bool:
        return OBJECTIVES[self.objective_name].uses_negatives and self.recipe.negatives.student

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that this objective trains, which validation measures."""
        return OBJECTIVES[self.objective_name].heads()

    @property
    def choose_by(self) -> str:
        return self.recipe.train.validate_.choose_by if len(self.heads) > 1 else self.heads[0]

    @property
    def longest(self) -> dict[str, int]:
        """How many tokens each head may write."""
        return {
            "label": self.manifest["longest_label"] + 1,
            "rationale": self.recipe.student.max_target_tokens,
        }

    @cached_property
    def objective(self) -> Objective:
        """The recipe's numbers, under the objective that this training is for."""
        settings = self.recipe.objective
        return build_objective(
            ObjectiveConfig(
                name=self.objective_name,
                alpha_pred=settings.alpha_pred,
                alpha_cl=settings.alpha_cl,
                beta=settings.beta,
                delta=settings.delta,
                selection=settings.selection,
                weights=settings.weights,
                prediction_mean=settings.prediction_mean,
                mi_weight=settings.mi_weight,
                mi_double_softmax=settings.mi_double_softmax,
                orpo_lambda=settings.orpo_lambda,
                redi_alpha=settings.redi_alpha,
                dpo_beta=settings.dpo_beta,
                dpo_nll=settings.dpo_nll,
                dpo_guard=settings.dpo_guard,
                negative_from=settings.negative_from,
            )
        )
