"""``train``: rounds, batches and workers of a training, and the validation that its best checkpoint
is chosen on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, NotNegative, Positive, Resources, Section


class RoundRecipe(Section):
    """The paper's "iteration": a fixed block of steps after which snapshots, negatives and D move
    on.
    """

    unit: Literal["steps", "epochs"] = "epochs"
    size: Count = 1


class WorkerRecipe(Resources):
    """What one training worker takes, and how many threads torch starts in it."""

    threads: Count = 1


class ValidateRecipe(Section):
    """Validation during training; the best checkpoint is chosen on it and on nothing else."""

    every_rounds: Count = 1
    max_questions: Count | None = None
    choose_by: Literal["label", "rationale", "mean"] = "mean"


class TrainRecipe(Section):
    """Ray Train and DeepSpeed. The batch of a step is a pure function of (seed, step); workers only
    share it out.
    """

    rounds: Count = 10
    round: RoundRecipe = RoundRecipe()
    batch_size: Count = Field(64, description="questions per optimizer step, over all workers")
    micro_batch_size: Count | None = Field(
        None, description="questions a worker takes at a time; none: its whole share"
    )
    workers: Count = 1
    worker: WorkerRecipe = WorkerRecipe()
    learning_rate: Positive = 5e-5
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NotNegative = 0.01
    clip: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    validate_: ValidateRecipe = Field(ValidateRecipe(), alias="validate")
    keep_snapshots: Count | None = Field(None, description="none: as many as the lag needs")
    max_failures: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _shares(self):
        if self.batch_size < self.workers:
            raise ValueError(
                f"batch_size ({self.batch_size}) is below workers ({self.workers}): some would have"
                " nothing to do"
            )
        return self
