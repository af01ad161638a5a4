"""The paper's objective: equations (3), (6), (7) and (8)."""

from __future__ import annotations

from torch import Tensor

from qcrd_ray.method.examples import SOURCES, Counts, Example, MicroBatch, Rationale
from qcrd_ray.method.losses import contrastive_term, negative_term, positive_term, weighted_loss
from qcrd_ray.method.objectives.base import (
    NEGATIVE_SOURCES,
    Forward,
    Objective,
    negative_source_sums,
    sum_of_means,
)
from qcrd_ray.method.selection import average


class Qcrd(Objective):
    """L = alpha1 * L_pred + alpha2 * L_cl, equation (8).

    By default with one positive and one negative a question. alpha3 * L_D is the discriminator's
    own step. A question without positives has L_pred alone and is not counted in N; one without
    negatives is, with a negative term of 0.
    """

    explains = True
    needs_weights = True
    uses_negatives = True
    means = {  # noqa: RUF012 (a ClassVar of the base)
        **Objective.means,
        "contrast": ("contrast", "contrasted"),
        "l_pos": ("l_pos", "positives"),
        "l_neg": ("l_neg", "negatives"),
        "positive_nll": ("positive_nll", "positives"),
        "negative_nll": ("negative_nll", "negatives"),
        "active_fraction": ("active", "negatives"),
        **NEGATIVE_SOURCES,
        "two_sided": ("two_sided", "contrasted"),
        "score_positive": ("positive_score", "positive_candidates"),
        **{
            f"score_{source}_negative": (
                f"{source}_negative_score",
                f"{source}_negative_candidates",
            )
            for source in SOURCES
        },
    }

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        return (example.positives, self.negatives(example)) if example.positives else ((), ())

    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        label, chosen, positive, negative = forward
        assert chosen is not None and positive is not None and negative is not None
        is_positive, is_negative = chosen.positive >= 0, chosen.negative >= 0
        has_positive, has_negative = is_positive.any(dim=1), is_negative.any(dim=1)
        positive_weights, negative_weights = (
            batch.weights[chosen.positive],
            batch.weights[chosen.negative],
        )
        l_pos = average(
            positive_term(positive.mean, positive_weights),
            positive_weights,
            is_positive,
            scheme=config.selection,
        )
        terms = negative_term(negative.mean, negative_weights, delta=config.delta)
        l_neg = average(terms, negative_weights, is_negative, scheme=config.selection)
        prediction, predictions = self.prediction(batch, label)
        contrast = contrastive_term(l_pos, l_neg, beta=config.beta).sum()
        loss = weighted_loss(
            prediction / max(1, counts.prediction),
            contrast / max(1, counts.contrast),
            alphas=(config.alpha_pred, config.alpha_cl, 0.0),
        )
        return loss, {
            "prediction": prediction,
            "predictions": predictions,
            "contrast": contrast,
            "contrasted": (has_positive | has_negative).sum(),
            "l_pos": l_pos.sum(),
            "positives": has_positive.sum(),
            "positive_nll": sum_of_means(positive.mean, is_positive),
            "l_neg": l_neg.sum(),
            "negatives": has_negative.sum(),
            "negative_nll": sum_of_means(negative.mean, is_negative),
            # their hinge has a gradient
            "active": sum_of_means(negative.mean < config.delta, is_negative),
            **negative_source_sums(batch, chosen.negative),
            "two_sided": (has_positive & has_negative).sum(),
            **_score_sums(batch),
        }

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """As the base's, and ``loss``: equation (8) without L_D, from the means of the log."""
        means = super().metrics(sums)
        alphas = (self.config.alpha_pred, self.config.alpha_cl, 0.0)
        return means | {
            "loss": weighted_loss(
                means.get("prediction", 0.0), means.get("contrast", 0.0), alphas=alphas
            )
        }


def _score_sums(batch: MicroBatch) -> dict[str, Tensor]:
    """Sums and counts of the candidates' scores, where they have one, by side and source."""
    sums: dict[str, Tensor] = {}

    def add(name: str, members: Tensor, *, source: int | None = None) -> None:
        scores, present = batch.scores[members.clamp(min=0)], members >= 0
        present = present & ~scores.isnan()
        if source is not None:
            present = present & (batch.sources[members.clamp(min=0)] == source)
        sums[f"{name}_score"] = scores.where(present, 0.0).sum()
        sums[f"{name}_candidates"] = present.sum()

    add("positive", batch.positives)
    for place, name in enumerate(SOURCES):
        add(f"{name}_negative", batch.negatives, source=place)
    return sums
