"""``evaluate`` and ``compare``: what is measured on the test splits, and against what."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, Resources, Section
from qcrd_ray.recipe.data import Split
from qcrd_ray.recipe.objective import ObjectiveName


class EvaluateRecipe(Section):
    """What is measured on the test splits, once, at the end of a run."""

    baselines: tuple[ObjectiveName, ...] = ("finetune",)
    """Objectives trained and measured beside the recipe's own."""
    base: bool = True
    """Measure the student before training as well."""
    teacher_on_test: bool = False
    """Ask the teacher the test questions too, to measure it on them (paid for)."""
    workers: Count = 1
    """Processes that answer the test questions."""
    worker: Resources = Resources()
    """What one of them takes of the cluster."""
    batch_size: Count = 64
    """Questions answered together."""


class Variant(Section):
    """A method of your own for `qcrd compare`: a known method with some keys changed."""

    like: str = "qcrd"
    """The method it starts from."""
    set: dict[str, Any] = Field(default={})
    """Dotted keys of this recipe and their values: {negatives.right: drop}."""


class CompareRecipe(Section):
    """`qcrd compare`: every method with every seed on the same rationales.

    A trial is one training in one process.
    """

    variants: dict[str, Variant] = Field(default={})
    """Methods of your own by name: {drop_right: {set: {negatives.right: drop}}}."""
    workers: Count | None = None
    """Trials at a time; null: as many as the cluster has room for."""
    worker: Resources = Resources()
    """What one trial takes of the cluster."""
    control: Split | None = None
    """The base model's own pretraining data with rationales, for the method `control`."""
    pairs: tuple[tuple[str, str], ...] = ()
    """The claims to test: pairs of `method/row`, the better one first. A row is `rationale`,
    `label`, or a vote such as `judged vote of 8`; []: of each method, its votes against each other.
    """
    resamples: Annotated[int, Field(ge=1_000)] = 10_000
    """Resamples of the bootstrap over questions and seeds."""

    @model_validator(mode="after")
    def _worker_has_cores(self):
        if self.worker.cpus == 0:
            raise ValueError("worker.cpus must be above 0: it says how many trials fit at a time")
        return self
