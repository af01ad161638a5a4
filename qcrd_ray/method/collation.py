"""Examples to padded tensors.

A micro-batch never lacks a part: where it has nothing to hold, it holds a dummy row without weight.
So every micro-batch, an empty one too, makes the same calls of the model, which ZeRO 3 needs of all
workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan

import torch
from torch import Tensor

from qcrd_ray.method.examples import SOURCES, Example, MicroBatch, Rationale, Tokens
from qcrd_ray.method.losses import IGNORED
from qcrd_ray.method.objectives.base import Objective


def collate(
    examples: Sequence[Example],
    objective: Objective,
    *,
    pad: int,
    draw: Callable[[Example], tuple[float, float]] | None = None,
    allow_missing_references: bool = False,
) -> MicroBatch:
    """One micro-batch of ``examples`` (none is allowed) as the objective wants it.

    ``pad`` is the tokenizer's padding id. ``draw`` gives a question's two random numbers of this
    step (None: zeros), which must not depend on the micro-batch it is in.
    ``allow_missing_references``: the batch is there to compute them.

    Raises:
        ValueError: an input or target has no token, or a candidate lacks the weight or the
            reference that the objective needs.
    """
    inputs: list[Tokens] = []
    labels: list[tuple[int, Tokens]] = []
    candidates: list[tuple[int, Rationale]] = []
    positives: list[range] = []
    negatives: list[range] = []
    draws: list[tuple[float, float]] = []
    question_labels: list[int] = []
    skips: list[int] = []
    for example in examples:
        label = -1
        if example.label is not None and objective.predicts:
            label = len(labels)
            labels.append((len(inputs), example.label))
            inputs.append(example.predict)
        sides = objective.candidates(example)
        if any(sides):
            skips += [0] * len(sides[0])
            skips += [
                (
                    _shared_start(negative, sides[0])
                    if objective.config.negative_from == "difference"
                    else 0
                )
                for negative in sides[1]
            ]
            for members, side in zip((positives, negatives), sides, strict=True):
                members.append(range(len(candidates), len(candidates) + len(side)))
                candidates.extend((len(inputs), rationale) for rationale in side)
            inputs.append(example.explain)
            draws.append(draw(example) if draw else (0.0, 0.0))
            question_labels.append(label)
    if objective.needs_weights and any(rationale.weight is None for _, rationale in candidates):
        raise ValueError(
            "a rationale has no weight: score and weigh all candidates before the round's first"
            " step"
        )
    if (
        objective.needs_reference
        and not objective.sft
        and not allow_missing_references
        and any(rationale.reference is None for _, rationale in candidates)
    ):
        raise ValueError(
            "a rationale has no reference: score all candidates under the reference before the"
            " round's first step"
        )
    padded, mask = pad_rows(inputs or [(pad,)], pad)
    return MicroBatch(
        inputs=padded,
        input_mask=mask,
        labels=_targets([tokens for _, tokens in labels] or [(pad,)]),
        label_rows=torch.tensor([row for row, _ in labels] or [0]),
        label_real=torch.tensor([True] * len(labels) or [False]),
        candidates=_targets([rationale.tokens for _, rationale in candidates] or [(pad,)]),
        candidate_rows=torch.tensor([row for row, _ in candidates] or [0]),
        scores=torch.tensor(
            [nan if rationale.score is None else rationale.score for _, rationale in candidates]
            or [nan]
        ),
        weights=torch.tensor([rationale.weight or 0.0 for _, rationale in candidates] or [0.0]),
        references=torch.tensor(
            [
                nan if rationale.reference is None else rationale.reference
                for _, rationale in candidates
            ]
            or [nan]
        ),
        sources=torch.tensor(
            [SOURCES.index(rationale.source) for _, rationale in candidates] or [0]
        ),
        positives=members_matrix(positives),
        negatives=members_matrix(negatives),
        draws=torch.tensor(draws, dtype=torch.float64).view(-1, 2),
        skips=torch.tensor(skips or [0]),
        rivals=torch.tensor(
            [i for side in (*positives, *negatives) if len(side) > 1 for i in side] or [0]
        ),
        question_labels=torch.tensor(question_labels, dtype=torch.long),
    )


def _shared_start(negative: Rationale, positives: Sequence[Rationale]) -> int:
    """How many of the negative's first tokens some positive shares.

    Its last token is always left to be penalised.
    """
    longest = 0
    for positive in positives:
        pairs = zip(negative.tokens, positive.tokens, strict=False)
        longest = max(
            longest,
            next(
                (i for i, (a, b) in enumerate(pairs) if a != b),
                min(len(negative.tokens), len(positive.tokens)),
            ),
        )
    return min(longest, len(negative.tokens) - 1)


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Token ids padded at the right with ``value``, and the mask of real ones: ``[rows, tokens]``.

    Raises:
        ValueError: a row is empty.
    """
    if not all(rows):
        raise ValueError("a row has no token: an empty input, label or rationale cannot be used")
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.full(mask.shape, value, dtype=torch.long)
    padded[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return padded, mask.long()


def _targets(rows: Sequence[Tokens]) -> Tensor:
    return pad_rows(rows, IGNORED)[0]


def members_matrix(members: Sequence[range]) -> Tensor:
    """Index lists as ``[questions, rationales]``, padded with -1.

    There is at least one column, also where no question has any.
    """
    width = max((len(row) for row in members), default=0) or 1
    return torch.tensor(
        [[*row, *[-1] * (width - len(row))] for row in members], dtype=torch.long
    ).view(-1, width)
