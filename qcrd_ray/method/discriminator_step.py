"""One training step of the discriminator: equation (2), or a loss in its place, over the questions that have rationales of both kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from qcrd_ray.method.collation import members_matrix, pad_rows
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.examples import Tokens
from qcrd_ray.method.losses import bradley_terry_terms, cross_entropy_terms, discriminator_terms

DiscriminatorLoss = Literal["paper", "cross_entropy", "bradley_terry"]
LOSSES = {  # each of logits: positives, negatives, and their masks
    "paper": lambda positive, negative, *masks: discriminator_terms(positive.sigmoid(), negative.sigmoid(), *masks),
    "cross_entropy": cross_entropy_terms,
    "bradley_terry": bradley_terry_terms,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A question's rationales as the discriminator reads them: tokenised (question, rationale) pairs, right ones and others."""

    positives: tuple[Tokens, ...]
    negatives: tuple[Tokens, ...]

    @property
    def two_sided(self) -> bool:
        """Whether equation (2) is defined on it; the global count of these divides the loss."""
        return bool(self.positives and self.negatives)


class DiscriminatorBatch(NamedTuple):
    """``tokens``, ``mask``: ``[pairs, tokens]``. ``positives``, ``negatives``: ``[questions, rationales]`` indices into them, -1 padded."""

    tokens: Tensor
    mask: Tensor
    positives: Tensor
    negatives: Tensor

    def to(self, device: torch.device | str) -> DiscriminatorBatch:
        """The same on ``device``."""
        return DiscriminatorBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def collate_contrasts(contrasts: Sequence[Contrast], *, pad: int) -> DiscriminatorBatch:
    """The two-sided questions of ``contrasts`` (the others are left out); a batch without any holds one pair that nobody points at."""
    pairs: list[Tokens] = []
    members: tuple[list[range], list[range]] = ([], [])
    for contrast in contrasts:
        if contrast.two_sided:
            for ranges, side in zip(members, (contrast.positives, contrast.negatives), strict=True):
                ranges.append(range(len(pairs), len(pairs) + len(side)))
                pairs.extend(side)
    tokens, mask = pad_rows(pairs or [(pad,)], pad)
    return DiscriminatorBatch(tokens, mask, *(members_matrix(side) for side in members))


class DiscriminatorOutput(NamedTuple):
    """``loss``: the batch's part of the global loss, to call backward on. ``sums``: what to log, added over batches and ranks."""

    loss: Tensor
    sums: Tensor


class DiscriminatorStep(nn.Module):
    """The discriminator with its loss as one module, for ``deepspeed.initialize`` like ``StudentStep``.

    ``loss`` is equation (2) on scores ("paper"), or a proper loss on logits. alpha3 is not in it: under Adam a constant factor does
    nothing, the learning rate decays per round instead.
    """

    sums = ("discriminator", "two_sided", "positive_score", "positives", "negative_score", "negatives")

    def __init__(self, discriminator: Discriminator, *, loss: DiscriminatorLoss = "paper", smoothing: float = 0.0) -> None:
        assert not smoothing or loss == "cross_entropy", "the other losses have no targets"
        super().__init__()
        self.discriminator = discriminator
        self.terms = partial(cross_entropy_terms, smoothing=smoothing) if smoothing else LOSSES[loss]

    def forward(self, batch: DiscriminatorBatch, two_sided: int) -> DiscriminatorOutput:
        """``two_sided`` is the number of two-sided questions in the global batch."""
        logits = self.discriminator(batch.tokens, batch.mask)
        (positive, is_positive), (negative, is_negative) = [
            (logits[side.clamp(min=0)], side >= 0) for side in (batch.positives, batch.negatives)
        ]
        total = self.terms(positive, negative, is_positive, is_negative).sum() + logits.sum() * 0.0
        sums = [total, logits.new_tensor(len(batch.positives)), *_score_sum(positive, is_positive), *_score_sum(negative, is_negative)]
        return DiscriminatorOutput(total / max(1, two_sided), torch.stack([value.detach().float() for value in sums]))

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Means for the log from sums added over micro-batches, ranks and steps."""
        total, two_sided, positive, positives, negative, negatives = sums.tolist()
        if not two_sided:
            return {}
        return {"loss": total / two_sided, "score_positive": positive / positives, "score_negative": negative / negatives}


def _score_sum(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return (logits.sigmoid() * mask).sum(), mask.sum()
