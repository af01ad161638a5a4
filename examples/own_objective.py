"""An objective of your own: unlikelihood training on a right and a wrong rationale of a question.

    L = alpha1 * L_pred + alpha2 * 1/N sum_i [ l_pos + beta * -log(1 - p_neg) ],   p = exp(-l)

with l the mean loss of a rationale's tokens (after Welleck et al. 2020, arXiv 1908.04319).
docs/extending.md explains it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qcrd_ray.method.examples import Counts, Example, MicroBatch, Rationale
from qcrd_ray.method.losses import weighted_loss
from qcrd_ray.method.objectives import Forward, Objective


class Unlikelihood(Objective):
    """L_pred, the positive's loss, and a term that falls as the negative becomes unlikely."""

    explains = True  # it trains the `explain:` head, so its batches carry rationales
    uses_negatives = True  # so that older students write some
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Objective.means,
        "positive_nll": ("positive_nll", "positives"),
        "unlikelihood": ("unlikelihood", "negatives"),
    }

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        """A question without a positive has L_pred alone."""
        return (example.positives, self.negatives(example)) if example.positives else ((), ())

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sums of this micro-batch, divided by counts over the global batch."""
        chosen, positive, negative = forward.chosen, forward.positive, forward.negative
        assert chosen is not None and positive is not None and negative is not None
        prediction, predictions = self.prediction(batch, forward.label)
        has_positive, has_negative = chosen.positive >= 0, chosen.negative >= 0
        likely = positive.mean.where(has_positive, 0.0).sum()
        # where there is none, a loss of 1 stands in, so that nothing infinite is masked away
        nll = negative.mean.where(has_negative, 1.0).clamp(min=1e-6)
        unlikely = -torch.log(-torch.expm1(-nll)).where(has_negative, 0.0).sum()
        loss = weighted_loss(
            prediction / max(1, counts.prediction),
            (likely + self.config.beta * unlikely) / max(1, counts.contrast),
            alphas=(self.config.alpha_pred, self.config.alpha_cl, 0.0),
        )
        assert isinstance(loss, Tensor)
        return loss, {
            "prediction": prediction,
            "predictions": predictions,
            "positive_nll": likely,
            "positives": has_positive.sum(),
            "unlikelihood": unlikely,
            "negatives": has_negative.sum(),
        }
