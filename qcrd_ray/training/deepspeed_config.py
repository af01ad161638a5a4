"""What DeepSpeed is told: one configuration for the student, one for the discriminator. Pure: recipe in, dictionary out."""

from __future__ import annotations

from typing import Any

from qcrd_ray.recipe import DiscriminatorRecipe, TrainRecipe


def micro_batches(train: TrainRecipe) -> tuple[int, int]:
    """(questions in a micro-batch, micro-batches a step) of one worker. Every worker does as many, an empty one if need be."""
    share = -(-train.batch_size // train.workers)
    size = min(train.micro_batch_size or share, share)
    return size, -(-share // size)


def student_config(train: TrainRecipe) -> dict[str, Any]:
    """The student's engine. Losses are divided by global counts (METHOD.md 2b), so the batch sizes here serve only accumulation."""
    size, accumulation = micro_batches(train)
    return _config(
        micro_batch=size,
        accumulation=accumulation,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        clip=train.clip,
        precision=train.precision,
        zero_stage=train.zero_stage,
    )


def discriminator_config(recipe: DiscriminatorRecipe, train: TrainRecipe) -> dict[str, Any]:
    """The discriminator's engine: small, so replicated (ZeRO 0) and in float32; own learning rate, own clipping."""
    return _config(
        micro_batch=-(-recipe.batch_size // train.workers),
        accumulation=1,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        clip=recipe.clip,
        precision="fp32",
        zero_stage=0,
    )


def _config(
    *, micro_batch: int, accumulation: int, learning_rate: float, weight_decay: float, clip: float, precision: str, zero_stage: int
) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        # torch's own AdamW: the same arithmetic on every device, and nothing to compile.
        "optimizer": {"type": "AdamW", "params": {"lr": learning_rate, "weight_decay": weight_decay, "torch_adam": True}},
        "gradient_clipping": clip,  # DeepSpeed would clip at 1.0 unasked
        "bf16": {"enabled": precision == "bf16"},
        # Small buckets: DeepSpeed allocates them whole, and a student of a few million parameters never fills the default 2 GB.
        "zero_optimization": {"stage": zero_stage, "reduce_bucket_size": 50_000_000, "allgather_bucket_size": 50_000_000},
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
