"""The methods that QCRD builds on, without a vote and without negatives.

They learn one rationale of the teacher a question, right or wrong; `finetune` learns none.
"""

from __future__ import annotations

from torch import Tensor

from qcrd_ray.method.examples import Counts, Example, MicroBatch, Rationale
from qcrd_ray.method.losses import mutual_information_term, weighted_loss
from qcrd_ray.method.objectives.base import Forward, Objective
from qcrd_ray.method.selection import Selection


class Finetune(Objective):
    """``finetune``, the baseline: question to label. L = L_pred, with weight 1."""

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        prediction, predictions = self.prediction(batch, forward.label)
        return prediction / max(1, counts.prediction), {
            "prediction": prediction,
            "predictions": predictions,
        }


class Distilling(Objective):
    """``dss``, Distilling Step-by-Step (Hsieh et al. 2023, arXiv 2305.02301).

        L = alpha1 * L_pred + alpha2 * L_expl

    L_expl is the mean over questions of l(f(x), r) of the teacher's first sample; a question whose
    first sample could not be read has L_pred alone. The paper's single weight lambda = 1 is
    alpha1 = alpha2.
    """

    explains = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Objective.means,
        "explanation": ("explanation", "explanations"),
    }

    @property
    def chooses_by_loss(self) -> bool:
        return False

    def target(self, example: Example) -> tuple[int, ...] | None:
        """What the `explain:` head learns of a question."""
        return example.first

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        target = self.target(example)
        return ((), ()) if target is None else ((Rationale(tokens=target),), ())

    def select(self, nll: Tensor | None, batch: MicroBatch) -> Selection:
        return Selection(batch.positives, batch.negatives)

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert forward.chosen is not None and forward.positive is not None
        present = forward.chosen.positive >= 0
        prediction, predictions = self.prediction(batch, forward.label)
        explanation = forward.positive.mean.where(present, 0.0).sum()
        loss = self.combine(
            prediction / max(1, counts.prediction), explanation / max(1, counts.contrast)
        )
        return loss, {
            "prediction": prediction,
            "predictions": predictions,
            "explanation": explanation,
            "explanations": present.sum(),
        }

    def combine(self, prediction: Tensor, explanation: Tensor) -> Tensor:
        """The weighted sum of the two means."""
        return weighted_loss(
            prediction, explanation, alphas=(self.config.alpha_pred, self.config.alpha_cl, 0.0)
        )


class SingleTask(Distilling):
    """``single_task``: one target, the first sample's reasoning closed by the label.

    The label is read out of what the student writes. A question without a label, or whose first
    sample could not be read, adds nothing.
    """

    predicts = False

    def target(self, example: Example) -> tuple[int, ...] | None:
        return example.single

    def combine(self, prediction: Tensor, explanation: Tensor) -> Tensor:
        # connected, so that every micro-batch has the same gradients
        return explanation + 0.0 * prediction


class MutualInformation(Distilling):
    """``mi`` (Chen et al. 2024, arXiv 2403.03348): dss + mi_weight * a cross-entropy.

    It is the cross-entropy between the token peaks of the two heads, by the formula of the public
    code (:func:`qcrd_ray.method.losses.mutual_information_term`). Questions with both a label and
    a rationale have it, and the mean is over the questions that are explained.
    """

    needs_token_peaks = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Distilling.means,
        "mutual_information": ("mutual_information", "pairs"),
    }

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = super().loss(batch, forward, counts)
        chosen, rationale, label = forward.chosen, forward.positive, forward.label
        assert chosen is not None and rationale is not None
        assert rationale.peaks is not None and label.peaks is not None
        paired = (batch.question_labels >= 0) & (chosen.positive[:, 0] >= 0)
        terms = mutual_information_term(label.peaks[batch.question_labels], rationale.peaks[:, 0])
        total = terms.where(paired, 0.0).sum()
        loss = loss + self.config.mi_weight * total / max(1, counts.contrast)
        return loss, sums | {"mutual_information": total, "pairs": paired.sum()}
