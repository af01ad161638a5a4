"""Selection: which rationales of a question are trained on.

The min and max of equations (6) and (7), and the schemes that the paper compares them with.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Scheme = Literal["minmax", "maxmin", "sampling", "mean", "weighted_mean"]
# these choose by the candidates' losses, which costs a pass without gradient
BY_LOSS = ("minmax", "maxmin")


class Selection(NamedTuple):
    """The chosen candidates: indices into the batch's, -1 where there is none.

    Both are ``[questions, chosen]``.
    """

    positive: Tensor
    negative: Tensor


def select(
    nll: Tensor | None,
    positives: Tensor,
    negatives: Tensor,
    *,
    scheme: Scheme = "minmax",
    draws: Tensor | None = None,
) -> Selection:
    """Choose from the positives and the negatives of each question.

    ``positives`` and ``negatives`` are ``[questions, rationales]`` indices into the candidates,
    padded with -1. The scheme is one of:

    - "minmax", the paper's: the positive that the student finds likeliest and the negative that it
      finds least likely, by the raw loss ``nll`` ``[candidates]``. Weighting by s comes afterwards:
      an argmin of s * l would pick whatever the discriminator scores lowest. Ties go to the lowest
      index, so a repeated text counts once.
    - "maxmin": the reverse of "minmax".
    - "sampling": one of each side at random, by ``draws`` ``[questions, 2]``, uniform in [0, 1).
    - "mean", "weighted_mean": all of them; the two differ in how their terms are averaged
      (:func:`average`).
    """
    if scheme in BY_LOSS:
        assert nll is not None
        largest = scheme == "maxmin"
        return Selection(
            _extreme(nll, positives, largest=largest), _extreme(nll, negatives, largest=not largest)
        )
    if scheme == "sampling":
        assert draws is not None
        return Selection(_drawn(positives, draws[:, 0]), _drawn(negatives, draws[:, 1]))
    return Selection(positives, negatives)


def average(terms: Tensor, weights: Tensor, present: Tensor, *, scheme: Scheme) -> Tensor:
    """One value a question from the terms of its chosen candidates, which hold their weights.

    ``[questions, chosen]`` -> ``[questions]``, 0 where there are none. A mean over the candidates;
    under "weighted_mean" the sum of terms over the sum of weights, so that the weights share out 1
    among the candidates and a question counts the same whatever they add up to.
    """
    total = (
        (weights.detach() if scheme == "weighted_mean" else present).where(present, 0).sum(dim=1)
    )
    return terms.where(present, 0.0).sum(dim=1) / total.where(total > 0, 1)


def _extreme(nll: Tensor, members: Tensor, *, largest: bool) -> Tensor:
    present = members >= 0
    values = nll.detach()[members.clamp(min=0)]
    values = values if not largest else -values
    # argmin returns the first of equals
    first_best = values.masked_fill(~present, torch.inf).argmin(dim=1, keepdim=True)
    return members.gather(1, first_best).where(present.any(dim=1, keepdim=True), -1)


def _drawn(members: Tensor, draws: Tensor) -> Tensor:
    """The floor(draw * n)-th of each question's n members; members stand before their padding."""
    count = (members >= 0).sum(dim=1)
    place = (draws * count).long().clamp(max=(count - 1).clamp(min=0))
    return members.gather(1, place[:, None])
