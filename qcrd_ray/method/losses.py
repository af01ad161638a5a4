"""Equations (2)-(8) of the paper as pure functions, with the rules of METHOD.md 2b where it is silent.

Each returns per-row values or local *sums*: whoever calls divides by counts over the global batch. All of them compute in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Scalar = Tensor | float
IGNORED = -100  # the label of a padded position, as everywhere in torch and transformers


def target_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each target, and its length in tokens: two ``[rows]`` tensors. Nats.

    ``logits`` is ``[rows, tokens, vocabulary]``, ``labels`` ``[rows, tokens]`` with :data:`IGNORED` at padding. EOS counts like any token.
    l(f(x), r) of the paper is the quotient of the two: the mean over one example's target tokens.
    """
    nll = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return nll.view(labels.shape).sum(dim=1), (labels != IGNORED).sum(dim=1)


def positive_term(nll: Tensor, score: Tensor) -> Tensor:
    """Equation (6) for rationales already selected: l_pos = s * l. No gradient reaches the score. ``[rows]``."""
    return score.detach() * nll


def negative_term(nll: Tensor, score: Tensor, *, delta: float) -> Tensor:
    """Equation (7) for rationales already selected: l_neg = (1 - s) * min(l - delta, 0), which lies in [-delta, 0]. ``[rows]``.

    Written with relu, so that the gradient at l = delta is 0 (clamp and minimum leave half or all of it).
    """
    return -(1.0 - score.detach()) * F.relu(delta - nll)


def contrastive_term(positive: Tensor, negative: Tensor, *, beta: float) -> Tensor:
    """The bracket of equation (3), l_pos - beta * l_neg, per question. A missing side is a 0. ``[questions]``."""
    return positive - beta * negative


def discriminator_terms(positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor) -> Tensor:
    """Equation (2), LSE(s_neg) - LSE(s_pos), for each question that has both kinds: ``[two-sided questions]``.

    Scores and masks are ``[questions, rationales]``. Questions with one kind only are dropped *before* the log-sum-exp: masked after it,
    they would send NaN into the gradient.
    """
    two_sided = positive_mask.any(dim=1) & negative_mask.any(dim=1)
    positive, negative = positive[two_sided], negative[two_sided]
    floor = torch.finfo(positive.dtype).min
    positive = positive.masked_fill(~positive_mask[two_sided], floor)
    negative = negative.masked_fill(~negative_mask[two_sided], floor)
    return negative.logsumexp(dim=1) - positive.logsumexp(dim=1)


def weighted_loss(prediction: Scalar, contrast: Scalar, discriminator: Scalar = 0.0, *, alphas: tuple[float, float, float]) -> Scalar:
    """Equation (8): alpha1 * L_pred + alpha2 * L_cl + alpha3 * L_D.

    The student's step leaves L_D out (it has no weights of the student in it); the discriminator's step leaves alpha3 out, because under
    Adam a constant factor does nothing: its learning rate decays instead.
    """
    return alphas[0] * prediction + alphas[1] * contrast + alphas[2] * discriminator
