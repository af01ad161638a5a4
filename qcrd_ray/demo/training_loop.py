"""The training loop of the small models that are made from scratch, and the plan of one phase.

Plain PyTorch, on a CPU. What a model learns is its maker's: it hands in batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

Part = dict[str, torch.Tensor]  # the model's arguments, `labels` among them
Batches = Iterator[list[Part]]
IGNORED = -100  # the label that transformers' losses leave out


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One phase of training: how long, and how fast."""

    steps: int
    batch_size: int = 48
    learning_rate: float = 4e-3
    muon_learning_rate: float = 0.02
    warmup: int = 30
    dropout: float = 0.0


def train(
    model: PreTrainedModel, batches: Batches, plan: Plan, report: Callable[[str], None]
) -> None:
    """Train with a warmup and a linear decay to 0.

    A batch is a list of parts, whose losses are added.
    """
    _set_dropout(model, plan.dropout)
    optimizers = _optimizers(model, plan)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(
                (step + 1) / plan.warmup, (plan.steps - step) / max(1, plan.steps - plan.warmup)
            ),
        )
        for optimizer in optimizers
    ]
    model.train()
    for step, parts in enumerate(itertools.islice(batches, plan.steps), start=1):
        losses = [model(**part).loss for part in parts]
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for moving in (*optimizers, *schedules):
            moving.step()
        model.zero_grad()
        if step % 25 == 0 or step == plan.steps:
            report(
                f"step {step}/{plan.steps}  loss "
                + " ".join(f"{loss.item():.4f}" for loss in losses)
            )


def _optimizers(model: PreTrainedModel, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms.

    Muon needs a third of AdamW's steps here. T5 does not scale its attention logits by
    ``d_kv ** -0.5`` but starts with queries that much smaller; they must move that much slower too,
    or the softmax saturates and nothing is learnt.
    """
    tables = ("embed_tokens", "shared", "relative_attention_bias")
    queries, matrices, rest = [], [], []
    for name, weight in model.named_parameters():
        is_matrix = weight.ndim == 2 and not any(table in name for table in tables)
        (queries if name.endswith(".q.weight") else matrices if is_matrix else rest).append(weight)
    groups = [{"params": matrices, "lr": plan.muon_learning_rate}]
    if queries:
        groups.append({"params": queries, "lr": plan.muon_learning_rate * model.config.d_kv**-0.5})
    return [
        torch.optim.Muon(groups, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _set_dropout(model: PreTrainedModel, share: float) -> None:
    """Set every dropout of the model, and its configuration's."""
    if hasattr(model.config, "dropout_rate"):
        model.config.dropout_rate = share
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout", None), float):  # on the attention's weights
            module.dropout = share  # pyright: ignore[reportArgumentType]  # a module of transformers
