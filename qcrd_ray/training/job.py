"""What one training is: the recipe, the objective, and where its files lie. Made on the driver, sent to every worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from qcrd_ray.method.objectives import Objective, ObjectiveConfig, build_objective
from qcrd_ray.recipe import Recipe

ObjectiveName = Literal["qcrd", "finetune"]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """``folder`` is train/<objective>; ``start`` and ``data`` lie beside it and serve both objectives."""

    recipe: Recipe
    objective_name: ObjectiveName
    folder: Path
    validation: Path  # questions/validation.parquet
    manifest: dict[str, Any]  # of the prepared data

    @property
    def start(self) -> Path:
        return self.folder.parent / "start"

    @property
    def data(self) -> Path:
        return self.folder.parent / "data" / "train.arrow"

    @property
    def contrastive(self) -> bool:
        """Whether rationales, a discriminator and negatives take part."""
        return self.objective_name == "qcrd"

    @property
    def samples_negatives(self) -> bool:
        return self.contrastive and self.recipe.negatives.student

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that this objective trains, which validation measures."""
        return ("label", "rationale") if self.contrastive else ("label",)

    @property
    def choose_by(self) -> str:
        return self.recipe.train.validate_.choose_by if self.contrastive else "label"

    @property
    def longest(self) -> dict[str, int]:
        """How many tokens each head may write."""
        return {"label": self.manifest["longest_label"] + 1, "rationale": self.recipe.student.max_target_tokens}

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
                prediction_mean=settings.prediction_mean,
            )
        )
