"""The methods that QCRD builds on: one rationale of the teacher a question, right or wrong, without
a vote.
"""

from __future__ import annotations

from torch import Tensor

from qcrd_ray.method.examples import Counts, Example, MicroBatch, Rationale
from qcrd_ray.method.losses import mutual_information_term, weighted_loss
from qcrd_ray.method.objectives.base import Forward, Objective
from qcrd_ray.method.selection import Selection


class Distilling(Objective):
    """``dss``, Distilling Step-by-Step (Hsieh et al. 2023, arXiv 2305.02301): L = alpha1 * L_pred +
    alpha2 * L_expl.

    L_expl is the mean over questions of l(f(x), r) of the teacher's first sample; a question whose
    first sample could not be read has L_pred alone. The paper's single weight lambda = 1 is alpha1
    = alpha2.
    """

    explains = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Objective.means,
        "explanation": ("explanation", "explanations"),
    }

    chooses_by_loss = False

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
    """``single_task``: one target, the first sample's reasoning closed by the label; the label is
    read out of what the student writes.

    A question without a label, or whose first sample could not be read, adds nothing.
    """

    predicts = False

    def target(self, example: Example) -> tuple[int, ...] | None:
        return example.single

    def combine(self, prediction: Tensor, explanation: Tensor) -> Tensor:
        # connected, so that every micro-batch has the same gradients
        return explanation + 0.0 * prediction


class MutualInformation(Distilling):
    """``mi`` (Chen et al. 2024, arXiv 2403.03348): dss + mi_weight * the cross-entropy between what
    the two heads say of a question.

    See :func:`qcrd_ray.method.losses.mutual_information_term`; questions with both a label and a
    rationale have it, and the mean is over the questions that are explained.
    """

    needs_token_peaks = True
    means = {
        **Distilling.means,
        "mutual_information": ("mutual_information", "pairs"),
    }  # noqa: RUF012

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = super().loss(batch, forward, counts)
        paired = (batch.question_labels >= 0) & (forward.chosen.positive[:, 0] >= 0)
        label = forward.label.peaks[batch.question_labels]
        terms = mutual_information_term(
            label, forward.positive.peaks[:, 0], double_softmax=self.config.mi_double_softmax
        )
        total = terms.where(paired, 0.0).sum()
        loss = loss + self.config.mi_weight * total / max(1, counts.contrast)
        return loss, sums | {"mutual_information": total, "pairs": paired.sum()}


# MERGED method.objectives.finetune: The baseline: question to label, nothing else.


class Finetune(Objective):
    """L = L_pred, with weight 1."""

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        prediction, predictions = self.prediction(batch, forward.label)
        return prediction / max(1, counts.prediction), {
            "prediction": prediction,
            "predictions": predictions,
        }
