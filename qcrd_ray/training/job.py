"""A training job: the recipe, the objective, and where its files are.

The driver makes it and sends it to every worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from qcrd_ray.inference.heads import Head
from qcrd_ray.method.objectives import OBJECTIVES, Objective, ObjectiveConfig, build_objective
from qcrd_ray.recipe import ObjectiveName, ObjectiveRecipe, Recipe
from qcrd_ray.runs.manifests import TrainingSetManifest


def objectives_of(recipe: Recipe) -> list[type[Objective]]:
    """The objectives that a run trains for, one after another: the recipe's and its baselines."""
    return [
        OBJECTIVES[name]
        for name in dict.fromkeys((recipe.objective.name, *recipe.evaluate.baselines))
    ]


def uses_discriminator(recipe: Recipe, objective: type[Objective]) -> bool:
    """Whether a discriminator takes part in training for ``objective``."""
    return objective.needs_weights and recipe.objective.weights != "none"


def bundles(recipe: Recipe, objectives: Iterable[type[Objective]]) -> list[dict[str, float]]:
    """The resources that training for any one of ``objectives`` takes at the same time.

    A bundle per worker and, where one of them uses negatives that the student writes, a bundle per
    sampler.
    """
    samples = recipe.negatives.student and any(each.uses_negatives for each in objectives)
    samplers = recipe.negatives.samplers if samples else 0
    workers = [recipe.train.worker.bundle] * recipe.train.workers
    return workers + [recipe.negatives.sampler.bundle] * samplers


def objective_config(settings: ObjectiveRecipe, name: ObjectiveName) -> ObjectiveConfig:
    """The numbers of a recipe's `objective` section, for the objective ``name``."""
    numbers = {
        field.name: getattr(settings, field.name)
        for field in fields(ObjectiveConfig)
        if field.name != "name"
    }
    return ObjectiveConfig(name=name, **numbers)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training.

    ``home`` holds ``start``, ``discriminator`` (where that has a model of its own) and ``data``,
    which all trainings in it share. This one writes to ``folder``.
    """

    recipe: Recipe
    objective_name: ObjectiveName
    home: Path
    folder: Path
    validation: Path  # questions/validation.parquet
    manifest: TrainingSetManifest

    @property
    def start(self) -> Path:
        """The folder of the student that training starts from."""
        return self.home / "start"

    @property
    def discriminator_start(self) -> Path:
        """The folder of the model that the discriminator starts from."""
        return self.home / "discriminator" if self.recipe.discriminator.model else self.start

    @property
    def data(self) -> Path:
        """The folder of the prepared training set."""
        return self.home / "data"

    @property
    def uses_discriminator(self) -> bool:
        """Whether a discriminator takes part."""
        return uses_discriminator(self.recipe, OBJECTIVES[self.objective_name])

    @property
    def samples_negatives(self) -> bool:
        """Whether older snapshots of the student write negatives."""
        return OBJECTIVES[self.objective_name].uses_negatives and self.recipe.negatives.student

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the objective trains, which validation measures."""
        return OBJECTIVES[self.objective_name].heads()

    @property
    def choose_by(self) -> str:
        """The validation accuracy that the best round is chosen by."""
        (head, *others) = self.heads
        return self.recipe.train.validate_.choose_by if others else head

    @cached_property
    def objective(self) -> Objective:
        """The objective with the recipe's numbers."""
        return build_objective(objective_config(self.recipe.objective, self.objective_name))

    @property
    def sft_rounds(self) -> int:
        """Rounds before the first that learns from negatives; 0 where none does."""
        return self.recipe.objective.sft_rounds if self.objective.uses_negatives else 0

    def objective_of(self, round: int) -> Objective:
        """The objective of a round, which is without negatives in the first ``sft_rounds``."""
        return self._sft_objective if round < self.sft_rounds else self.objective

    @property
    def reference_snapshot(self) -> int | None:
        """The snapshot that the objective compares with; None: the start, or it does not compare.

        Snapshot r is the student after r rounds, so it is the one after the last round of SFT.
        """
        return (self.sft_rounds or None) if self.objective.needs_reference else None

    @cached_property
    def _sft_objective(self) -> Objective:
        return build_objective(self.objective.config, sft=True)
