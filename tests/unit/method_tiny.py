"""Tiny networks and examples for the tests of ``qcrd_ray.method``: built from a configuration, nothing is loaded."""

from __future__ import annotations

import random

import torch
from transformers import T5Config, T5ForConditionalGeneration

from qcrd_ray.method.collation import MicroBatch, collate
from qcrd_ray.method.examples import Counts, Example, Rationale, Source
from qcrd_ray.method.objectives import Forward, Objective, ObjectiveConfig, Targets, build_objective, total_counts
from qcrd_ray.method.weighting import weigh

PAD, EOS, VOCABULARY = 0, 1, 40


def tiny_t5(*, dropout: float = 0.0, seed: int = 0) -> T5ForConditionalGeneration:
    """A T5 of some 20,000 weights, in train mode."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=24,
        d_kv=6,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        dropout_rate=dropout,
        decoder_start_token_id=PAD,
    )
    return T5ForConditionalGeneration(config).train()


def tokens(random: random.Random, length: int) -> tuple[int, ...]:
    return (*(random.randrange(2, VOCABULARY) for _ in range(length)), EOS)


def rationale(random: random.Random, source: Source = Source.TEACHER) -> Rationale:
    written = tokens(random, random.randint(2, 7))
    return Rationale(tokens=written, source=source, score=random.random(), reference=3.5 * len(written))


def weighed(examples: list[Example], weights: str = "score") -> list[Example]:
    return list(weigh(dict(enumerate(examples)), weights=weights).values())


def varied_examples(count: int = 8, seed: int = 3) -> list[Example]:
    """Questions of many lengths; among them one without negatives, one without positives, one without anything, one without a label."""
    draw = random.Random(seed)
    examples = []
    for i in range(count):
        positives = 0 if i in (2, 3) else 1 + i % 4
        negatives = 0 if i in (1, 3) else 1 + i % 2
        examples.append(
            Example(
                predict=tokens(draw, 3 + i % 5),
                explain=tokens(draw, 4 + i % 3),
                label=None if i == 4 else tokens(draw, 1 + i % 2),
                positives=tuple(rationale(draw) for _ in range(positives)),
                negatives=tuple(rationale(draw, Source.STUDENT if j else Source.TEACHER) for j in range(negatives)),
                first=None if i == 5 else tokens(draw, 4),
                single=None if i == 6 else tokens(draw, 5),
            )
        )
    return weighed(examples)


def given_losses(
    questions: list[tuple[list[float], list[float], list[float], list[float]]],
    objective: Objective,
    draws: tuple[float, float] = (0.0, 0.0),
    *,
    start: float = 0.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor, MicroBatch]:
    """Run an objective on stated losses instead of a network's: (loss, sums, the losses as a leaf with gradient, the batch).

    A question is (l+, s+, l-, s-); the leaf holds all the losses in that order. ``start``: what each of them was at the start.
    """
    examples = weighed(
        [
            Example(
                predict=(EOS,),
                explain=(EOS,),
                positives=tuple(Rationale(tokens=(EOS,), score=score, reference=start) for score in positive_scores),
                negatives=tuple(Rationale(tokens=(EOS,), score=score, reference=start) for score in negative_scores),
            )
            for _, positive_scores, _, negative_scores in questions
        ],
        objective.config.weights,
    )
    batch = collate(examples, objective, pad=PAD)
    values = [value for positive, _, negative, _ in questions for value in (*positive, *negative)]
    losses = torch.tensor(values, requires_grad=True)
    batch = batch._replace(weights=batch.weights.clone().requires_grad_(), draws=torch.tensor([draws] * len(batch.positives)).view(-1, 2))
    chosen = objective.select(losses, batch)
    sides = [Targets(losses[side] * (side >= 0), (side >= 0).long()) for side in chosen]
    label = Targets(torch.zeros(1), torch.zeros(1, dtype=torch.long))
    loss, sums = objective.loss(batch, Forward(label, chosen, *sides), total_counts(objective, examples))
    return loss, sums, losses, batch


def contrastive_only(**settings) -> Objective:
    """The paper's objective with L_cl alone, at weight 1."""
    return build_objective(ObjectiveConfig(name="qcrd", alpha_pred=0.0, alpha_cl=1.0, **settings))


__all__ = [
    "EOS",
    "PAD",
    "VOCABULARY",
    "Counts",
    "contrastive_only",
    "given_losses",
    "rationale",
    "tiny_t5",
    "tokens",
    "varied_examples",
    "weighed",
]
