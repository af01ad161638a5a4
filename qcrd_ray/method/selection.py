"""Which rationale of a question is trained on: the min and max of equations (6) and (7)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Scheme = Literal["minmax", "maxmin"]


class Selection(NamedTuple):
    """The chosen candidates: two ``[questions]`` tensors of indices into the batch's candidates, -1 where a side is empty."""

    positive: Tensor
    negative: Tensor


def select(nll: Tensor, positives: Tensor, negatives: Tensor, *, scheme: Scheme = "minmax") -> Selection:
    """Choose one positive and one negative a question by the raw loss: weighting by s comes afterwards.

    (An argmin of s * l would pick whatever the discriminator scores lowest.) ``nll`` is ``[candidates]``; ``positives`` and ``negatives``
    are ``[questions, rationales]`` indices into it, padded with -1. "minmax", the paper's, takes the positive that the student finds
    likeliest and the negative that it finds least likely. Ties go to the lowest index, so a repeated text counts once.
    """
    largest = scheme == "maxmin"
    return Selection(_pick(nll, positives, largest=largest), _pick(nll, negatives, largest=not largest))


def _pick(nll: Tensor, members: Tensor, *, largest: bool) -> Tensor:
    present = members >= 0
    values = nll.detach()[members.clamp(min=0)]
    values = values if not largest else -values
    first_best = values.masked_fill(~present, torch.inf).argmin(dim=1, keepdim=True)  # argmin returns the first of equals
    return members.gather(1, first_best).squeeze(1).where(present.any(dim=1), -1)
