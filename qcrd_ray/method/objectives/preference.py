"""Pairs of a right and a wrong rationale, instead of the paper's two weighted terms.

Each objective keeps L_pred and the positive's own loss, and adds a term for the pair: one positive
and one negative drawn at random (``selection``: "sampling"; the other schemes that choose one of
each work too).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from qcrd_ray.method.examples import Counts, Example, MicroBatch, Rationale
from qcrd_ray.method.losses import log_odds, weighted_loss
from qcrd_ray.method.objectives.base import (
    NEGATIVE_SOURCES,
    Forward,
    Objective,
    ObjectiveConfig,
    Targets,
    negative_source_sums,
)


class Side(NamedTuple):
    """The chosen rationale of each question on one side; all ``[questions]``.

    ``nll``: its loss, the mean over its tokens.
    ``gain``: log p of the whole of it under the student, minus the same under the reference; 0
    where there is no reference, as in the rounds of fine-tuning.
    ``present``: whether there is one. Where there is none, a loss of 1 and a gain of 0 stand in, so
    that nothing infinite is masked away after the fact.
    """

    nll: Tensor
    gain: Tensor
    present: Tensor


class Preference(Objective):
    """L = alpha1 * L_pred + alpha2 * 1/N sum_i [ l_i^pos + pair_i ].

    A question without a negative has no pair; one without a positive has L_pred alone. In the
    rounds of fine-tuning (``sft``) no question has a pair, and l_i^pos has weight 1.

    Raises:
        ValueError: the selection scheme takes several candidates of a side.
    """

    explains = True
    uses_negatives = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Objective.means,
        "positive_nll": ("positive_nll", "positives"),
        "negative_nll": ("negative_nll", "negatives"),
        "pair": ("pair", "negatives"),
        **NEGATIVE_SOURCES,
    }

    def __init__(self, config: ObjectiveConfig, *, sft: bool = False) -> None:
        if config.selection in ("mean", "weighted_mean"):
            raise ValueError(
                f"{config.name} compares one positive with one negative: choose them by sampling,"
                " minmax or maxmin"
            )
        super().__init__(config, sft=sft)

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        return (example.positives, self.negatives(example)) if example.positives else ((), ())

    @property
    def positive_weight(self) -> float:
        """What the positive's own loss counts for beside the pair."""
        return 1.0

    @abstractmethod
    def pair(self, positive: Side, negative: Side) -> Tensor:
        """The term of each pair, ``[questions]``."""

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = forward.chosen
        assert chosen is not None and forward.positive is not None and forward.negative is not None
        positive, negative = (
            _side(batch, chosen.positive, forward.positive),
            _side(batch, chosen.negative, forward.negative),
        )
        pairs = self.pair(positive, negative).where(positive.present & negative.present, 0.0)
        prediction, predictions = self.prediction(batch, forward.label)
        own = positive.nll.where(positive.present, 0.0)
        contrast = ((1.0 if self.sft else self.positive_weight) * own + pairs).sum()
        alphas = (self.config.alpha_pred, self.config.alpha_cl, 0.0)
        loss = weighted_loss(
            prediction / max(1, counts.prediction),
            contrast / max(1, counts.contrast),
            alphas=alphas,
        )
        return loss, {
            "prediction": prediction,
            "predictions": predictions,
            "positive_nll": own.sum(),
            "positives": positive.present.sum(),
            "negative_nll": negative.nll.where(negative.present, 0.0).sum(),
            "negatives": negative.present.sum(),
            "pair": pairs.sum(),
            "positive_gain": positive.gain.sum(),
            "negative_gain": negative.gain.sum(),
            **negative_source_sums(batch, chosen.negative),
        }


def _side(batch: MicroBatch, chosen: Tensor, targets: Targets) -> Side:
    present = chosen[:, 0] >= 0
    gain = batch.references[chosen[:, 0]] - targets.nll[:, 0]
    compared = present & ~gain.isnan()
    return Side(targets.mean[:, 0].where(present, 1.0), gain.where(compared, 0.0), present)


class OrpoDistill(Preference):
    """``orpo_distill`` (arXiv 2509.25100).

        pair = lambda * -log sigmoid(log-odds of the positive - log-odds of the negative)

    Odds are of the mean token likelihood exp(-l), as in ORPO (Hong et al. 2024, arXiv 2403.07691),
    whose lambda = 0.1 is the default.

    ORPO has no phase of fine-tuning before it. ORPO-Distill's losers are wrong samples of the
    student, from before and during training: ``negatives.teacher: false``, ``negatives.right:
    drop``. A recipe's defaults mix in the teacher's minority and right samples of the student.
    """

    def pair(self, positive: Side, negative: Side) -> Tensor:
        return self.config.orpo_lambda * F.softplus(log_odds(negative.nll) - log_odds(positive.nll))


class Redi(Preference):
    """``redi`` (arXiv 2505.24850): pair = -alpha * l of the negative, alpha = 0.8.

    The negative's likelihood is pushed down without a bound. The paper does so in a second stage,
    after fine-tuning on right rationales, for one epoch at a much lower learning rate, with the
    teacher's errors: ``objective.sft_rounds``, ``negatives.student: false``. From the first step on
    and at the full rate, as with ``sft_rounds: 0``, it is not the paper's method.
    """

    def pair(self, positive: Side, negative: Side) -> Tensor:
        return -self.config.redi_alpha * negative.nll


class Dpo(Preference):
    """``dpo``: DPO + NLL, with the guard of DPOP. No single paper has this combination.

    With g = log p under the student - log p under the reference, sums over a rationale's tokens:

        dpo_nll * l^pos - log sigmoid(dpo_beta * (g^pos - g^neg - dpo_guard * relu(-g^pos)))

    DPO is Rafailov et al. 2023 (arXiv 2305.18290). The positive's own loss beside it is Pang et al.
    2024 (Iterative Reasoning Preference Optimization, arXiv 2404.19733), whose beta = 0.1 and
    weight 1 are the defaults; its reference moves with each iteration, and its pairs are the
    student's own right and wrong samples. Ours stays the start, or the student at the end of
    ``objective.sft_rounds``, which is DPO's own protocol. The guard is Pal et al. 2024
    (DPO-Positive, arXiv 2402.13228), whose lambda = 50 is the default. DPO rewards a difference
    alone, so it may lower both likelihoods; the guard treats a pair whose positive falls below its
    reference as far from right. A guard of 0 is off.
    """

    needs_reference = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Preference.means,
        "positive_gain": ("positive_gain", "positives"),
        "negative_gain": ("negative_gain", "negatives"),
    }

    @property
    def positive_weight(self) -> float:
        return self.config.dpo_nll

    def pair(self, positive: Side, negative: Side) -> Tensor:
        margin = positive.gain - negative.gain - self.config.dpo_guard * F.relu(-positive.gain)
        return F.softplus(-self.config.dpo_beta * margin)
