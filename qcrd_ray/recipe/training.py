"""``train``: rounds, batches, workers, and the validation that chooses the best checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, NotNegative, Positive, Resources, Section


class RoundRecipe(Section):
    """The length of a round, which is the paper's "iteration".

    After a round the student's snapshot, its negatives and the discriminator are renewed.
    """

    unit: Literal["steps", "epochs"] = "epochs"
    """What `size` counts: optimizer steps, or passes over the questions."""
    size: Count | None = None
    """Length of a round in units. A worker holds the questions of one round: null is one pass over
    the questions, or as many steps as read 10,000 of them where there are more.
    """

    @model_validator(mode="after")
    def _steps_are_counted(self):
        if self.unit == "steps" and self.size is None:
            raise ValueError("size: say how many steps a round has, where unit is steps")
        return self


class WorkerRecipe(Resources):
    """What one training worker takes, and how many threads torch starts in it."""

    threads: Count = 1
    """Threads of torch; raise it with `cpus` on CPU nodes."""


class ValidateRecipe(Section):
    """Validation during training. It alone chooses the best checkpoint."""

    every_rounds: Count = 1
    """Rounds between two validations."""
    max_questions: Count | None = None
    """Validate on the first so many questions; null: on all."""
    choose_by: Literal["label", "rationale", "mean"] = "mean"
    """The head whose accuracy chooses the checkpoint, or the mean of both."""


class TrainRecipe(Section):
    """Training with Ray Train and DeepSpeed.

    The seed and the step alone decide a step's batch, so the number of workers does not change what
    is learnt.
    """

    rounds: Count = 10
    """Rounds of training; raise it while validation improves."""
    round: RoundRecipe = RoundRecipe()
    """Length of a round."""
    batch_size: Count = 64
    """Questions per optimizer step, over all workers."""
    micro_batch_size: Count | None = None
    """Questions that a worker takes at a time; null: its whole share. Lower it when memory runs
    out.
    """
    workers: Count = 1
    """Processes that share each batch."""
    worker: WorkerRecipe = WorkerRecipe()
    """What one of them takes of the cluster."""
    learning_rate: Positive = 5e-5
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "constant"] = "linear"
    """After the warm-up: linear decay to 0, or constant."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from 0."""
    weight_decay: NotNegative = 0.01
    """Weight decay of AdamW."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    runaway: Literal["stop", "warn"] = "stop"
    """What follows when, after the first round, a token of the student's targets costs twice what
    guessing does. A loss that is no number always stops the training.
    """
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of weights and activations; bf16 takes half the memory. Gradients are summed in
    float32 in either.
    """
    tf32: bool = True
    """Multiply float32 matrices in TF32 on GPUs that have it: much faster, 10 bits of mantissa. For
    training, its discriminator and its samplers.
    """
    compile: bool = False
    """Compile the student's layers (torch.compile): minutes at first, then faster steps on GPUs."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """What DeepSpeed ZeRO shares among workers: 1 optimizer states, 2 gradients too, 3 weights too.
    """
    validate_: ValidateRecipe = Field(default=ValidateRecipe(), alias="validate")
    """Validation during training."""
    keep_snapshots: Count | None = None
    """Snapshots of the student kept on disk; null: as many as the lag needs."""
    checkpoint_every_steps: Count | None = None
    """Steps between two checkpoints within a round; null: one checkpoint a round, at its end."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """How often failed workers are restarted from the last checkpoint."""

    @model_validator(mode="after")
    def _whole_layers(self):
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "compile: ZeRO stage 3 gathers each layer's weights by hooks, which a compiled"
                " layer does not call; set zero_stage to 2 or lower, or compile to false"
            )
        return self

    @model_validator(mode="after")
    def _shares(self):
        if self.batch_size < self.workers:
            raise ValueError(
                f"batch_size ({self.batch_size}) is below workers ({self.workers}): some would have"
                " nothing to do"
            )
        return self
