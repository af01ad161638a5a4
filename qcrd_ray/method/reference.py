"""The reference of a preference loss: each candidate's loss under the student before its pairs.

That is the student at the start, or at the end of the rounds of supervised fine-tuning. It never
changes, so a round's candidates are scored once, not step by step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from qcrd_ray.method.collation import collate
from qcrd_ray.method.examples import Example, Rationale
from qcrd_ray.method.objectives import Objective
from qcrd_ray.method.student import StudentStep


def reference_losses(
    start: StudentStep, examples: Sequence[Example], *, pad: int, batch_size: int
) -> list[list[float]]:
    """The summed losses of each example's candidates under ``start``, positives before negatives.

    In nats, over the tokens that the objective's loss counts. ``batch_size`` examples of similar
    length are read at a time.
    """
    device = next(start.parameters()).device
    losses: list[list[float]] = [[] for _ in examples]
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].explain))
    for first in range(0, len(order), batch_size):
        chunk = order[first : first + batch_size]
        # the label head has no candidates
        unlabelled = [replace(examples[i], label=None) for i in chunk]
        batch = collate(unlabelled, start.objective, pad=pad, allow_missing_references=True)
        flat = iter(start.candidate_losses(batch.to(device)).tolist())
        for i in chunk:
            losses[i] = [
                next(flat) for side in start.objective.candidates(examples[i]) for _ in side
            ]
    return losses


def with_references(example: Example, objective: Objective, losses: Iterable[float]) -> Example:
    """The example with ``losses``, in their order, as the references of its candidates."""
    flat = iter(losses)

    def with_reference(side: tuple[Rationale, ...]) -> tuple[Rationale, ...]:
        return tuple(replace(rationale, reference=next(flat)) for rationale in side)

    positives, negatives = objective.candidates(example)
    return (
        replace(example, positives=with_reference(positives), negatives=with_reference(negatives))
        if positives or negatives
        else example
    )
