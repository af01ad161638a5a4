"""Equations (2)-(8) of the paper as pure functions, and METHOD.md 2b where the paper is silent.

Each returns per-row values or local *sums*: the caller divides by counts over the global batch.
All of them compute in float32.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Scalar = TypeVar("Scalar", Tensor, float)
IGNORED = -100  # the label of a padded position, as everywhere in torch and transformers


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each token in nats: ``[..., tokens]``, 0 where it is ignored.

    ``logits`` is ``[..., tokens, vocabulary]``, ``labels`` ``[..., tokens]`` with :data:`IGNORED`
    at padding. EOS counts like any token.
    """
    return F.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)


def target_nll(losses: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each target in nats, and its length in tokens: both ``[rows]``.

    ``losses`` ``[rows, tokens]`` are :func:`token_nll` of ``labels``. l(f(x), r) of the paper is
    the quotient of the two: the mean over one example's target tokens.
    """
    return losses.sum(dim=1), (labels != IGNORED).sum(dim=1)


def positive_term(nll: Tensor, weight: Tensor) -> Tensor:
    """Equation (6) for rationales already selected: l_pos = w * l with w = s.

    Any shape. No gradient reaches the weight.
    """
    return weight.detach() * nll


def negative_term(nll: Tensor, weight: Tensor, *, delta: float) -> Tensor:
    """Equation (7) for rationales already selected: l_neg = w * min(l - delta, 0) with w = 1 - s.

    Any shape; in [-delta, 0]. Written with relu, so that the gradient at l = delta is 0 (clamp and
    minimum leave half or all of it).
    """
    return -weight.detach() * F.relu(delta - nll)


def contrastive_term(positive: Tensor, negative: Tensor, *, beta: float) -> Tensor:
    """The bracket of equation (3), l_pos - beta * l_neg, per question: ``[questions]``.

    A missing side is a 0.
    """
    return positive - beta * negative


def token_peaks(logits: Tensor, labels: Tensor) -> Tensor:
    """The highest probability of each vocabulary token at any place of a target.

    ``[rows, vocabulary]``, of ``logits`` and ``labels`` as in :func:`token_nll`.
    """
    probabilities = logits.float().softmax(dim=-1)
    return probabilities.masked_fill((labels == IGNORED)[..., None], 0.0).amax(dim=1)


def mutual_information_term(label: Tensor, rationale: Tensor) -> Tensor:
    """The cross-entropy between the two heads' token peaks, as published: ``[questions]``, in nats.

    Both are :func:`token_peaks` ``[questions, vocabulary]``. As in the public code of Chen et al.
    2024 (arXiv 2403.03348), the rationale's peaks e are taken for *logits* and the label's peaks p
    for the target, detached and not divided by their sum:

        - sum_t p_t * log softmax(e)_t

    Peaks lie in [0, 1], so softmax(e) is nearly flat and the term weak. Their code takes the
    highest probability over padding too; here padding has no part in a peak.
    """
    return F.cross_entropy(rationale, label.detach(), reduction="none")


def log_odds(nll: Tensor) -> Tensor:
    """log(p / (1 - p)) for p = exp(-nll), nll > 0. At nll near 0, p is held below 1."""
    nll = nll.clamp(min=1e-6)
    return -nll - (-torch.expm1(-nll)).log()


def discriminator_terms(
    positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor
) -> Tensor:
    """Equation (2), LSE(s_neg) - LSE(s_pos): ``[questions that have both kinds]``.

    Scores and masks are ``[questions, rationales]``. Questions with one kind only are dropped
    *before* the log-sum-exp: masked after it, they would send NaN into the gradient.
    """
    two_sided = positive_mask.any(dim=1) & negative_mask.any(dim=1)
    positive, negative = positive[two_sided], negative[two_sided]
    floor = torch.finfo(positive.dtype).min
    positive = positive.masked_fill(~positive_mask[two_sided], floor)
    negative = negative.masked_fill(~negative_mask[two_sided], floor)
    return negative.logsumexp(dim=1) - positive.logsumexp(dim=1)


def cross_entropy_terms(
    positive: Tensor,
    negative: Tensor,
    positive_mask: Tensor,
    negative_mask: Tensor,
    *,
    smoothing: float = 0.0,
) -> Tensor:
    """Binary cross-entropy on *logits*: ``[questions that have both kinds]``, in nats.

    Each side's mean weighs half. Unlike equation (2) it is a proper score: a rationale that is
    right in 70 % of all cases gets a score of 0.70 where both sides are as frequent. ``smoothing``
    makes 1 - smoothing and smoothing of the targets 1 and 0 (Szegedy et al. 2016,
    arXiv 1512.00567).
    """
    two_sided = positive_mask.any(dim=1) & negative_mask.any(dim=1)
    # -log sigmoid(z) = softplus(-z), and softplus(z) = softplus(-z) + z.
    sides = (
        (F.softplus(-positive) + smoothing * positive, positive_mask),
        (F.softplus(negative) - smoothing * negative, negative_mask),
    )
    means = [
        (values.where(mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1))[two_sided]
        for values, mask in sides
    ]
    return (means[0] + means[1]) / 2


def bradley_terry_terms(
    positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor
) -> Tensor:
    """-log sigmoid(z_pos - z_neg) on *logits*, the mean over a question's pairs.

    ``[questions that have both kinds]`` (Bradley and Terry 1952). It sees differences within a
    question only, so it cannot learn how hard the question is.
    """
    two_sided = positive_mask.any(dim=1) & negative_mask.any(dim=1)
    pairs = positive_mask[:, :, None] & negative_mask[:, None, :]
    values = F.softplus(negative[:, None, :] - positive[:, :, None]).where(pairs, 0.0)
    return (values.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1))[two_sided]


def weighted_loss(
    prediction: Scalar,
    contrast: Scalar,
    discriminator: Scalar | float = 0.0,
    *,
    alphas: tuple[float, float, float],
) -> Scalar:
    """Equation (8): alpha1 * L_pred + alpha2 * L_cl + alpha3 * L_D.

    The student's step leaves L_D out (it has no weights of the student in it); the discriminator's
    step leaves alpha3 out, because under Adam a constant factor does nothing: its learning rate
    decays instead.
    """
    return alphas[0] * prediction + alphas[1] * contrast + alphas[2] * discriminator
