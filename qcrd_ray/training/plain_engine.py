"""DeepSpeed's engine for one process without DeepSpeed: the same calls, plain torch behind them.

A comparison trains many small students, each in one process, where DeepSpeed's start and its bookkeeping would be most of the work. What is
learnt is the same (tests/integration/test_learner.py). Nothing is saved: what is interrupted is trained again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PlainEngine:
    """Takes DeepSpeed's ``config`` (:mod:`qcrd_ray.training.deepspeed_config`); fp32 alone. ``schedule`` makes one of an optimizer."""

    def __init__(self, module: nn.Module, config: dict[str, Any], *, schedule=None) -> None:
        assert not config["bf16"]["enabled"] and config["zero_optimization"]["stage"] < 3, "one process trains in fp32, unsharded"
        settings = config["optimizer"]["params"]
        self.module = module
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=settings["lr"], weight_decay=settings["weight_decay"])
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
