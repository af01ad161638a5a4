"""``evaluate``: what is measured on the test splits, and beside what."""

from __future__ import annotations

from pydantic import Field

from qcrd_ray.recipe.objective import ObjectiveName
from qcrd_ray.recipe.sections import Count, NotNegative, Section


class EvaluateRecipe(Section):
    """What is measured on the test split, once, at the end."""

    baselines: tuple[ObjectiveName, ...] = Field(("finetune",), description="objectives trained and measured beside the recipe's own")
    base: bool = Field(True, description="measure the student before training as well")
    teacher_on_test: bool = Field(False, description="ask the teacher the test questions too, to measure it on them (paid for)")
    workers: Count = 1
    cpus_per_worker: NotNegative = 1.0
    gpus_per_worker: NotNegative = 0.0
    resources_per_worker: dict[str, float] = Field({})
    batch_size: Count = 64
