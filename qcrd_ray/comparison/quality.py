"""What can be said of rationales without a judge: parsable, right in each step, as long as they should be, not going round."""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.evaluation.predictions import Prediction
from qcrd_ray.tasks.steps import check_steps

_GRAM = 4  # words


def judge_rationales(predictions: Sequence[Prediction], *, split: str) -> dict[str, float]:
    """Means over the rationales of a split; {} where the method writes none.

    ``parsable``: an answer can be read. ``steps_right``: of all "a op b = c" in them, the share that holds (left out where there is none).
    ``tokens``: the mean length. ``repetition``: 1 - distinct / all runs of four words within a rationale. ``agreement``: the share of
    questions on which both heads give the same answer (left out where one head is missing).
    """
    written = [p for p in predictions if p.split == split and p.head == "rationale"]
    if not written:
        return {}
    steps = [check_steps(p.text or "") for p in written]
    total = sum(step.total for step in steps)
    facts = {
        "parsable": sum(p.answer is not None for p in written) / len(written),
        "tokens": sum(p.tokens for p in written) / len(written),
        "repetition": sum(_repetition(p.text or "") for p in written) / len(written),
    }
    if total:
        facts["steps_right"] = sum(step.right for step in steps) / total
    labels = {p.question_id: p.answer for p in predictions if p.split == split and p.head == "label"}
    if labels:
        facts["agreement"] = sum(p.answer is not None and labels[p.question_id] == p.answer for p in written) / len(written)
    return facts


def _repetition(text: str) -> float:
    words = text.split()
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
