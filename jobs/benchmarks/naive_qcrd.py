"""QCRD's step as one writes it down from the equations: what ours is compared with.

Every pair of a question and a rationale goes through the whole model by itself, with gradient, and
the loss then takes the likeliest positive and the least likely negative of each question. Ours
encodes a question once for all of its rationales, chooses without gradient, and runs the chosen
again (:mod:`qcrd_ray.method.student`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qcrd_ray.method.collation import collate
from qcrd_ray.method.examples import Example, Tokens
from qcrd_ray.method.losses import IGNORED, token_nll
from qcrd_ray.method.objectives import Objective
from qcrd_ray.method.objectives.base import total_counts
from qcrd_ray.method.student import StudentStep
from qcrd_ray.models.pretrained import load_student

LEARNING_RATE = 5e-4


class NaiveStep(nn.Module):
    """Equation (8) without L_D, for an encoder-decoder, MinMax and no dropout."""

    def __init__(self, student: PreTrainedModel, objective: Objective, *, pad: int) -> None:
        super().__init__()
        assert objective.config.selection == "minmax"
        self.student, self.objective, self.pad = student, objective, pad

    def forward(self, examples: Sequence[Example]) -> Tensor:
        """The loss of a batch, a scalar."""
        config, counts = self.objective.config, total_counts(self.objective, examples)
        labelled = [each for each in examples if each.label is not None]
        losses, _ = self._losses(
            [each.predict for each in labelled], [each.label or () for each in labelled]
        )
        prediction = losses.sum() / max(1, counts.prediction)
        asked = [each for each in examples if each.positives]
        pairs = [(each, side) for each in asked for side in (each.positives, each.negatives)]
        losses, lengths = self._losses(
            [each.explain for each, side in pairs for _ in side],
            [rationale.tokens for _, side in pairs for rationale in side],
        )
        means = iter(losses.sum(dim=1) / lengths)
        sides = [
            [(next(means), rationale.weight or 0.0) for rationale in side] for _, side in pairs
        ]
        contrast = torch.stack(
            [
                self._contrast(positives, negatives)
                for positives, negatives in zip(sides[::2], sides[1::2], strict=True)
            ]
        ).sum() / max(1, counts.contrast)
        return config.alpha_pred * prediction + config.alpha_cl * contrast

    def _contrast(
        self, positives: list[tuple[Tensor, float]], negatives: list[tuple[Tensor, float]]
    ) -> Tensor:
        """The bracket of equation (3) for one question, of mean losses and weights."""
        config = self.objective.config
        nll, weight = min(positives, key=lambda each: each[0])
        value = weight * nll
        if negatives:
            nll, weight = max(negatives, key=lambda each: each[0])
            value = value + config.beta * weight * torch.relu(config.delta - nll)
        return value

    def _losses(self, inputs: Sequence[Tokens], targets: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """Token losses of each target after its own input ``[targets, tokens]``, and lengths."""
        ids, labels = padded(inputs, self.pad), padded(targets, IGNORED)
        mask = (ids != self.pad).long()
        logits = self.student(ids, attention_mask=mask, labels=labels).logits
        return token_nll(logits, labels), (labels != IGNORED).sum(dim=1)


def naive_seconds(
    start: Path, objective: Objective, batches: Sequence[Sequence[Example]], *, pad: int
) -> tuple[float, float]:
    """Seconds of a step, and the loss of the first."""
    student, _ = load_student(start)
    step = NaiveStep(student.train(), objective, pad=pad)
    return _trained(student, [lambda batch=batch: step(batch) for batch in batches])


def our_seconds(
    start: Path, objective: Objective, batches: Sequence[Sequence[Example]], *, pad: int
) -> tuple[float, float]:
    """As :func:`naive_seconds`, by our step; each batch is one micro-batch."""
    student, _ = load_student(start)
    step = StudentStep(student.train(), objective)

    def loss(batch: Sequence[Example]) -> Tensor:
        return step(collate(batch, objective, pad=pad), total_counts(objective, batch)).loss

    return _trained(student, [lambda batch=batch: loss(batch) for batch in batches])


def padded(rows: Sequence[Tokens], value: int) -> Tensor:
    """The rows as one tensor ``[rows, tokens]``, filled up with ``value``."""
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def _trained(student: PreTrainedModel, losses: Sequence) -> tuple[float, float]:
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    first, began = None, time.monotonic()
    for loss_of in losses:
        loss = loss_of()
        first = loss.item() if first is None else first
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert first is not None
    return (time.monotonic() - began) / len(losses), first
