"""What moves the weights: DeepSpeed under Ray Train, and for a process alone plain torch behind the same calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from qcrd_ray.training.plain_engine import PlainEngine
from qcrd_ray.training.world import World


def start_engine(module: nn.Module, config: dict[str, Any], *, world: World, schedule: Callable | None = None) -> Any:
    """An engine around ``module``, on the world's device. ``schedule`` makes a learning rate schedule of an optimizer."""
    if world.alone:
        return PlainEngine(module.to(world.device), config, schedule=schedule)
    import deepspeed  # seconds, which a process alone need not spend

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=trained, config=config, lr_scheduler=schedule, dist_init_required=False
    )
    return engine


def gathered(module: nn.Module, *, sharded: bool) -> AbstractContextManager:
    """Within it the parameters of ``module`` are whole, also under ZeRO 3 (``sharded``)."""
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()))
