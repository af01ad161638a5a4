"""The DeepSpeed configurations, read back by DeepSpeed's own schema: a key that it ignores would
silently train something else.
"""

from __future__ import annotations

import pytest
import torch
from training_tiny import tiny_recipe

from qcrd_ray.training.engines import discriminator_config, micro_batches, student_config


@pytest.fixture(scope="module")
def read():
    """DeepSpeed's own reading of a configuration."""
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.config import DeepSpeedConfig

    return DeepSpeedConfig


@pytest.mark.parametrize(
    ("batch", "workers", "micro", "expected"),
    [
        (32, 2, None, (16, 1)),
        (32, 2, 4, (4, 4)),
        (32, 3, 4, (4, 3)),
        (5, 2, 1, (1, 3)),
        (8, 2, 100, (4, 1)),
        (7, 7, 2, (1, 1)),
    ],
)
def test_micro_batches_cover_a_workers_share(batch, workers, micro, expected):
    recipe = tiny_recipe(
        **{"train.batch_size": batch, "train.workers": workers, "train.micro_batch_size": micro}
    )
    size, number = micro_batches(recipe.train)
    assert (size, number) == expected
    assert size * number * workers >= batch


def test_accumulation_is_what_the_batches_are_dealt_into():
    """Guards an accumulation boundary in the middle of a step: DeepSpeed and the method must count
    micro-batches alike.
    """
    from qcrd_ray.method.batching import shard_batch

    for batch in range(1, 14):
        for workers in range(1, batch + 1):
            for micro in (None, 1, 2, 3, 5):
                recipe = tiny_recipe(
                    **{
                        "train.batch_size": batch,
                        "train.workers": workers,
                        "train.micro_batch_size": micro,
                    }
                )
                shards = shard_batch(list(range(batch)), workers=workers, micro_batch_size=micro)
                assert {len(share) for share in shards} == {micro_batches(recipe.train)[1]}, (
                    batch,
                    workers,
                    micro,
                )


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_students_settings_arrive(read, stage, precision):
    """Guards the recipe's clip: DeepSpeed clips at 1.0 where none is given."""
    recipe = tiny_recipe(
        **{
            "train.zero_stage": stage,
            "train.precision": precision,
            "train.clip": 0.7,
            "train.weight_decay": 0.03,
        }
    )
    config = read(student_config(recipe.train))
    assert config.gradient_clipping == 0.7
    # DeepSpeed accumulates bf16 gradients in bf16 where nothing is shared out
    assert config.zero_optimization_stage == (max(stage, 1) if precision == "bf16" else stage)
    assert config.bfloat16_config.enabled == (precision == "bf16")
    assert config.grad_accum_dtype == "fp32" and config.communication_data_type == torch.float32
    assert config.optimizer_name == "adamw"
    assert config.optimizer_params == {
        "lr": 1e-3,
        "weight_decay": 0.03,
        "torch_adam": True,
        "fused": True,
    }
    assert config.gradient_accumulation_steps == 1


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 0), ("bf16", 1)])
def test_the_discriminator_has_its_own_settings(read, precision, stage):
    recipe = tiny_recipe(
        **{
            "train.zero_stage": 3,
            "train.precision": "bf16",
            "train.clip": 0.7,
            "discriminator.clip": 0.2,
            "discriminator.precision": precision,
        }
    )
    config = read(discriminator_config(recipe.discriminator, recipe.train))
    assert (
        config.gradient_clipping,
        config.zero_optimization_stage,
        config.bfloat16_config.enabled,
    ) == (0.2, stage, precision == "bf16")
    assert not config.managed_gradient_accumulation, "a step has as many micro-batches as it needs"
    assert config.optimizer_params["lr"] == recipe.discriminator.learning_rate


def test_compiled_layers_have_no_hooks_of_zero_3():
    with pytest.raises(ValueError, match="compile: ZeRO stage 3"):
        tiny_recipe(**{"train.compile": True, "train.zero_stage": 3})
