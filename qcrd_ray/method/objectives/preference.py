"""Other ways to learn from a right and a wrong rationale of one question: pairs instead of the paper's two weighted terms.

Each keeps L_pred and the positive's own loss, and adds a term for the pair: one positive and one negative drawn at random
(``selection``: "sampling"; the other schemes that choose one of each work too).
"""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor

from qcrd_ray.method.collation import MicroBatch
from qcrd_ray.method.examples import Counts, Example, Rationale
from qcrd_ray.method.losses import log_odds, weighted_loss
from qcrd_ray.method.objectives.base import Forward, Objective, ObjectiveConfig


class Preference(Objective):
    """L = alpha1 * L_pred + alpha2 * 1/N sum_i [ l_i^pos + pair_i ].

    A question without a negative has no pair; one without a positive has L_pred alone.

    ValueError: a selection scheme that takes several candidates of a side.
    """

    explains = True
    contrasts = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Objective.means,
        "positive_nll": ("positive_nll", "positives"),
        "negative_nll": ("negative_nll", "negatives"),
        "pair": ("pair", "negatives"),
        "negative_from_student": ("negative_from_student", "negatives"),
    }

    def __init__(self, config: ObjectiveConfig) -> None:
        if config.selection in ("mean", "weighted_mean"):
            raise ValueError(f"{config.name} compares one positive with one negative: choose them by sampling, minmax or maxmin")
        super().__init__(config)

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        return (example.positives, example.negatives) if example.positives else ((), ())

    @abstractmethod
    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The term of each pair from the two mean losses, ``[questions]``."""

    def loss(self, batch: MicroBatch, forward: Forward, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        label, chosen, positive, negative = forward
        assert chosen is not None and positive is not None and negative is not None
        has_positive, has_negative = chosen.positive[:, 0] >= 0, chosen.negative[:, 0] >= 0
        wanted, unwanted = positive.mean[:, 0], negative.mean[:, 0]
        # Where there is no negative, a loss of 1 stands in, so that nothing infinite is masked away after the fact.
        pairs = self.pair(wanted.where(has_positive, 1.0), unwanted.where(has_negative, 1.0)).where(has_negative & has_positive, 0.0)
        prediction, predictions = self.prediction(batch, label)
        contrast = (wanted.where(has_positive, 0.0) + pairs).sum()
        alphas = (self.config.alpha_pred, self.config.alpha_cl, 0.0)
        loss = weighted_loss(prediction / max(1, counts.prediction), contrast / max(1, counts.contrast), alphas=alphas)
        return loss, {
            "prediction": prediction,
            "predictions": predictions,
            "positive_nll": wanted.where(has_positive, 0.0).sum(),
            "positives": has_positive.sum(),
            "negative_nll": unwanted.where(has_negative, 0.0).sum(),
            "negatives": has_negative.sum(),
            "pair": pairs.sum(),
            "negative_from_student": (has_negative & batch.from_student[chosen.negative[:, 0]]).sum(),
        }


class OrpoDistill(Preference):
    """``orpo_distill`` (arXiv 2509.25100): pair = lambda * -log sigmoid(log-odds of the positive - log-odds of the negative).

    Odds are of the mean token likelihood exp(-l), as in ORPO (Hong et al. 2024, arXiv 2403.07691), whose lambda = 0.1 is the default.
    """

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        return self.config.orpo_lambda * F.softplus(log_odds(negative) - log_odds(positive))


class Redi(Preference):
    """``redi`` (arXiv 2505.24850): pair = -alpha * l of the negative, alpha = 0.8: its likelihood is pushed down without a bound."""

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        return -self.config.redi_alpha * negative
