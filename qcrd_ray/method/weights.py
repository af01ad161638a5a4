"""The weights of rationales in the contrastive loss, equations (6) and (7).

The discriminator's score as the paper uses it, or an option for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from qcrd_ray.method.examples import Example, Rationale

Weights = Literal["score", "normalised", "none"]
Key = TypeVar("Key")


def assign_weights(examples: Mapping[Key, Example], *, weights: Weights) -> dict[Key, Example]:
    """The examples of a round with a weight on every rationale.

    "score" is the paper's: s on positives, 1 - s on negatives. "normalised" divides each side by
    its mean over all of the round's candidates, chosen or not, so that their mean weight is 1: a
    discriminator that scores everything alike would otherwise act as a learning rate. The mean
    weight that the loss uses need not be 1: minmax and maxmin choose, and a question counts once
    however many candidates it has. "none" is 1 everywhere: no discriminator.
    """
    if weights == "none":
        return {
            key: _weighted(example, positive=lambda _: 1.0, negative=lambda _: 1.0)
            for key, example in examples.items()
        }
    positive_factor = negative_factor = 1.0
    if weights == "normalised":
        every = examples.values()
        positive_factor = _inverse_mean([_score(r) for each in every for r in each.positives])
        negative_factor = _inverse_mean([1.0 - _score(r) for each in every for r in each.negatives])
    return {
        key: _weighted(
            example,
            positive=lambda rationale: positive_factor * _score(rationale),
            negative=lambda rationale: negative_factor * (1.0 - _score(rationale)),
        )
        for key, example in examples.items()
    }


def _weighted(
    example: Example,
    *,
    positive: Callable[[Rationale], float],
    negative: Callable[[Rationale], float],
) -> Example:
    """The example with the weight that ``positive`` or ``negative`` gives each rationale."""
    return replace(
        example,
        positives=tuple(replace(r, weight=positive(r)) for r in example.positives),
        negatives=tuple(replace(r, weight=negative(r)) for r in example.negatives),
    )


def _score(rationale: Rationale) -> float:
    assert rationale.score is not None, "the discriminator scores all rationales of a round first"
    return rationale.score


def _inverse_mean(weights: list[float]) -> float:
    """1 / mean; 1 where there are none, or all are 0 and stay so."""
    total = sum(weights)
    return len(weights) / total if total else 1.0
