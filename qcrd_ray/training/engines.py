"""What moves the weights: DeepSpeed under Ray Train, and for a process alone plain torch behind the
same calls.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from qcrd_ray.recipe import DiscriminatorRecipe, TrainRecipe
from qcrd_ray.training.process_group import ProcessGroup


def start_engine(
    module: nn.Module,
    config: dict[str, Any],
    *,
    process_group: ProcessGroup,
    schedule: Callable | None = None,
) -> Any:
    """An engine around ``module``, on the world's device. ``schedule`` makes a learning rate
    schedule of an optimizer.
    """
    if process_group.alone:
        return PlainEngine(module.to(process_group.device), config, schedule=schedule)
    import deepspeed  # seconds, which a process alone need not spend

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module,
        model_parameters=trained,
        config=config,
        lr_scheduler=schedule,
        dist_init_required=False,
    )
    return engine


def gathered(module: nn.Module, *, sharded: bool) -> AbstractContextManager:
    """Within it the parameters of ``module`` are whole, also under ZeRO 3 (``sharded``)."""
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()))


# MERGED training.plain_engine: DeepSpeed's engine for one process without DeepSpeed: the same
# calls, plain torch behind them.
#
# A comparison trains many small students, each in one process, where DeepSpeed's start and its
# bookkeeping would be most of the work. What is learnt is the same
# (tests/integration/test_learner.py). Nothing is saved: what is interrupted is trained again.
#


class PlainEngine:
    """Takes DeepSpeed's ``config`` (:mod:`qcrd_ray.training.engines`); fp32 alone. ``schedule``
    makes one of an optimizer.
    """

    def __init__(self, module: nn.Module, config: dict[str, Any], *, schedule=None) -> None:
        assert not config["bf16"]["enabled"] and config["zero_optimization"]["stage"] < 3, (
            "one process trains in fp32, unsharded"
        )
        settings = config["optimizer"]["params"]
        self.module = module
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=settings["lr"], weight_decay=settings["weight_decay"]
        )
        self._schedule = schedule(self.optimizer) if schedule else None
        self._clip: float = config["gradient_clipping"]
        self._accumulation: int = config["gradient_accumulation_steps"]
        self._micro_steps = 0

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def train(self) -> None:
        self.module.train()

    def gradient_accumulation_steps(self) -> int:
        return self._accumulation

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def backward(self, loss: Tensor) -> None:
        """As DeepSpeed, divide by the number of micro-batches."""
        (loss / self._accumulation).backward()

    def step(self) -> None:
        """As DeepSpeed, do something on the last micro-batch of a step only."""
        self._micro_steps += 1
        if self._micro_steps % self._accumulation:
            return
        nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
        self.optimizer.step()
        if self._schedule:
            self._schedule.step()
        self.optimizer.zero_grad(set_to_none=True)


# MERGED training.deepspeed_config: What DeepSpeed is told: one configuration for the student, one
# for the discriminator. Pure: recipe in, dictionary out.


def micro_batches(train: TrainRecipe) -> tuple[int, int]:
    """(questions in a micro-batch, micro-batches a step) of one worker. Every worker does as many,
    an empty one if need be.
    """
    share = -(-train.batch_size // train.workers)
    size = min(train.micro_batch_size or share, share)
    return size, -(-share // size)


def student_config(train: TrainRecipe) -> dict[str, Any]:
    """The student's engine. Losses are divided by global counts (METHOD.md 2b), so the batch sizes
    here serve only accumulation.
    """
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
    """The discriminator's engine: small, so replicated (ZeRO 0) and in float32; own learning rate,
    own clipping.
    """
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
    *,
    micro_batch: int,
    accumulation: int,
    learning_rate: float,
    weight_decay: float,
    clip: float,
    precision: str,
    zero_stage: int,
) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        # torch's own AdamW: the same arithmetic on every device, and nothing to compile.
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": learning_rate, "weight_decay": weight_decay, "torch_adam": True},
        },
        "gradient_clipping": clip,  # DeepSpeed would clip at 1.0 unasked
        "bf16": {"enabled": precision == "bf16"},
        # Small buckets: DeepSpeed allocates them whole, and a student of a few million parameters
        # never fills the default 2 GB.
        "zero_optimization": {
            "stage": zero_stage,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
