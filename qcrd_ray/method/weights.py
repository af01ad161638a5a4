"""What a rationale weighs in the contrastive loss: the discriminator's score, as equations (6) and
(7) use it, or an option for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from qcrd_ray.method.examples import Example, Rationale

Weights = Literal["score", "normalised", "none"]
Key = TypeVar("Key")


def assign_weights(examples: Mapping[Key, Example], *, weights: Weights) -> dict[Key, Example]:
    """The examples of a round with a weight on every rationale: s on positives, 1 - s on negatives
    (the paper's, "score").

    "normalised" divides each side by its mean over all of the round's candidates, chosen or not, so
    that their mean weight is 1: a discriminator that scores everything alike would otherwise act as
    a learning rate. The mean weight that the loss uses need not be 1: minmax and maxmin choose, and
    a question counts once however many candidates it has. "none" is 1 everywhere: no discriminator.
    """
    if weights == "none":
        return {key: _with(example, 1.0, 1.0, scored=False) for key, example in examples.items()}
    factors = (1.0, 1.0)
    if weights == "normalised":
        positive = [
            rationale.score for example in examples.values() for rationale in example.positives
        ]
        negative = [
            1.0 - rationale.score
            for example in examples.values()
            for rationale in example.negatives
        ]
        factors = (_inverse_mean(positive), _inverse_mean(negative))
    return {key: _with(example, *factors, scored=True) for key, example in examples.items()}


def _with(example: Example, positive: float, negative: float, *, scored: bool) -> Example:
    def weighed(rationale: Rationale, factor: float, *, of_positive: bool) -> Rationale:
        if not scored:
            return replace(rationale, weight=factor)
        return replace(
            rationale, weight=factor * (rationale.score if of_positive else 1.0 - rationale.score)
        )

    return replace(
        example,
        positives=tuple(
            weighed(rationale, positive, of_positive=True) for rationale in example.positives
        ),
        negatives=tuple(
            weighed(rationale, negative, of_positive=False) for rationale in example.negatives
        ),
    )


def _inverse_mean(weights: list[float]) -> float:
    """1 / mean; 1 where there are none, or all are 0 and stay so."""
    total = sum(weights)
    return len(weights) / total if total else 1.0
