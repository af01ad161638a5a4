"""``evaluate``: what is measured on the test splits, and beside what."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, Resources, Section
from qcrd_ray.recipe.data import Split
from qcrd_ray.recipe.objective import ObjectiveName


class EvaluateRecipe(Section):
    """What is measured on the test split, once, at the end."""

    baselines: tuple[ObjectiveName, ...] = Field(
        ("finetune",), description="objectives trained and measured beside the recipe's own"
    )
    base: bool = Field(True, description="measure the student before training as well")
    teacher_on_test: bool = Field(
        False,
        description="ask the teacher the test questions too, to measure it on them (paid for)",
    )
    workers: Count = 1
    worker: Resources = Resources()
    batch_size: Count = 64


# MERGED recipe.comparison: ``compare``: methods of one's own, and what a comparison of methods may
# use.


class Variant(Section):
    """A method of one's own for `qcrd compare`: another one with some keys changed."""

    like: str = Field("qcrd", description="the method it starts from")
    set: dict[str, Any] = Field(
        {}, description="dotted keys of this recipe: {negatives.right: drop}"
    )


class CompareRecipe(Section):
    """`qcrd compare`: every method with every seed on the same rationales. A trial is one
    training in one process.
    """

    variants: dict[str, Variant] = Field({})
    workers: Count | None = Field(
        None, description="trials at a time; none: as many as the cluster has room for"
    )
    worker: Resources = Resources()
    control: Split | None = Field(
        None,
        description="the base's own pretraining data with rationales: what `control` is trained on",
    )
    resamples: Annotated[int, Field(ge=1_000)] = Field(
        10_000, description="of the bootstrap over questions and seeds"
    )

    @model_validator(mode="after")
    def _worker_has_cores(self):
        if self.worker.cpus == 0:
            raise ValueError("worker.cpus must be above 0: it says how many trials fit at a time")
        return self
