"""Training engines: DeepSpeed under Ray Train; plain torch with the same calls in one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qcrd_ray.recipe import DiscriminatorRecipe, TrainRecipe
from qcrd_ray.training.process_group import ProcessGroup


def start_engine(
    module: nn.Module,
    config: dict[str, Any],
    *,
    process_group: ProcessGroup,
    schedule: Callable | None = None,
    merged: bool = False,
) -> Any:
    """An engine around ``module``, on the process group's device.

    ``config`` is DeepSpeed's (:func:`student_config`, :func:`discriminator_config`). ``schedule``
    makes a learning rate schedule of an optimizer. ``merged``: the checkpoint that will be loaded
    has no shards any more (:func:`qcrd_ray.training.checkpoints.find_checkpoint`).
    """
    if process_group.alone:
        return PlainEngine(module.to(process_group.device), config, schedule=schedule)
    import deepspeed  # it takes seconds, which a process alone need not spend

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module,
        # deepspeed annotates a list of parameters as a module
        model_parameters=trained,  # pyright: ignore[reportArgumentType]
        config=config | {"checkpoint": {"load_universal": merged}},
        lr_scheduler=schedule,
        dist_init_required=False,
    )
    return engine


def gathered(module: nn.Module, *, sharded: bool) -> AbstractContextManager:
    """A block in which the parameters of ``module`` are whole, also under ZeRO 3 (``sharded``)."""
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()))


def compile_layers(student: PreTrainedModel, **options: Any) -> None:
    """Compile the student's layers in place, each kind of layer once.

    Not the whole model: its layers repeat, while its head and its encoded inputs are read in turns
    (:mod:`qcrd_ray.method.prefix`). Batches of any length share one program. ``options`` are those
    of ``torch.compile``.
    """
    names = set(student._no_split_modules or ())
    for layer in student.modules():
        if type(layer).__name__ in names:
            layer.compile(dynamic=True, **options)


class PlainEngine:
    """The calls of DeepSpeed's engine for one process, with plain torch.

    A comparison trains many small students, each in one process, where DeepSpeed's start and its
    bookkeeping would be most of the work. What is learnt is the same
    (tests/integration/test_training.py). In bf16 the weights and gradients stay in float32. It
    saves nothing: an interrupted training begins again.
    """

    def __init__(
        self, module: nn.Module, config: dict[str, Any], *, schedule: Callable | None = None
    ) -> None:
        assert config["zero_optimization"]["stage"] < 3, "one process has no shards"
        settings = config["optimizer"]["params"]
        self.module = module
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True
        )
        self._schedule = schedule(self.optimizer) if schedule else None
        self._clip: float = config["gradient_clipping"]
        self._accumulation: int = config["gradient_accumulation_steps"]
        self._micro_steps = 0
        self._bf16: bool = config["bf16"]["enabled"]

    def __call__(self, *inputs: Any) -> Any:
        device = self.optimizer.param_groups[0]["params"][0].device
        # Its cache would hand weights that were cast without gradient to the pass with gradient.
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False):
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
        """As DeepSpeed, act on the last micro-batch of a step only."""
        self._micro_steps += 1
        if self._micro_steps % self._accumulation:
            return
        nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
        self.optimizer.step()
        if self._schedule:
            self._schedule.step()
        self.optimizer.zero_grad(set_to_none=True)


def micro_batches(train: TrainRecipe) -> tuple[int, int]:
    """(questions in a micro-batch, micro-batches a step) of one worker.

    Every worker runs as many micro-batches; some may be empty.
    """
    share = -(-train.batch_size // train.workers)
    size = min(train.micro_batch_size or share, share)
    return size, -(-share // size)


def student_config(train: TrainRecipe) -> dict[str, Any]:
    """DeepSpeed's configuration for the student.

    Losses are divided by global counts (METHOD.md 2b), so the batch sizes here serve only
    accumulation.
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
    """DeepSpeed's configuration for the discriminator.

    It is small, so it is replicated (ZeRO 0). Its micro-batches hold tokens, not questions, so a
    worker has as many as its share needs, and ends the step itself.
    """
    config = _config(
        micro_batch=-(-recipe.batch_size // train.workers),
        accumulation=1,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        clip=recipe.clip,
        precision=recipe.precision,
        zero_stage=0,
    )
    return config | {"managed_gradient_accumulation": False}


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
    bf16 = precision == "bf16"
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        # torch's own AdamW: the same arithmetic on every device, and nothing to compile. Its loop
        # over weights would take a tenth of a small student's step on a CPU.
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": learning_rate,
                "weight_decay": weight_decay,
                "torch_adam": True,
                "fused": True,
            },
        },
        "gradient_clipping": clip,  # DeepSpeed's own default is 1.0
        "bf16": {"enabled": bf16},
        # Sums of gradients, over micro-batches and over workers, are float32 in either precision.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        # Small buckets: DeepSpeed allocates them whole, and a student of a few million parameters
        # never fills the default 2 GB.
        "zero_optimization": {
            # without shards DeepSpeed would accumulate bf16 gradients in bf16
            "stage": max(zero_stage, 1) if bf16 else zero_stage,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
