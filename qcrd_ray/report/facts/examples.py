"""Examples to read: rationales at both ends of the discriminator's scale, and questions on which student and baseline differ.

Chosen by score or drawn with the run's seed, so that a report made again shows the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.parquet as pq

from qcrd_ray.method.randomness import keyed_random
from qcrd_ray.records import ScoredRationale
from qcrd_ray.report.facts.learning import Training
from qcrd_ray.report.facts.measured import Answer, Measured
from qcrd_ray.run_folder import RunFolder

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A question that one of two models got right, with both answers."""

    split: str
    question_id: str
    question: str
    first: Answer
    second: Answer


def extremes(training: Training) -> tuple[int, list[ScoredRationale], list[ScoredRationale]] | None:
    """(round from 1, best scored, worst scored) of the last round that kept scores, no question twice on one side; None: none did."""
    if not training.scores:
        return None
    last = max(training.scores)
    ranked = sorted(training.scores[last], key=lambda scored: (-scored.score, scored.question_id, scored.text))
    return last + 1, _first_of_each(ranked), _first_of_each(ranked[::-1])


def differences(
    folder: RunFolder, measured: Measured, *, first: tuple[str, str], second: tuple[str, str], seed: int
) -> tuple[list[Difference], list[Difference]]:
    """Up to :data:`SHOWN` questions that ``first`` gets and ``second`` does not, and as many the other way round, over all splits."""
    only_first, only_second = [], []
    for split in measured.splits:
        one, other = measured.answers.get((*first, split), {}), measured.answers.get((*second, split), {})
        texts = _questions(folder, split)
        for id in one.keys() & other.keys():
            if one[id].right != other[id].right:
                found = Difference(split=split, question_id=id, question=texts.get(id, ""), first=one[id], second=other[id])
                (only_first if one[id].right else only_second).append(found)
    return _draw(only_first, seed), _draw(only_second, seed)


def _first_of_each(ranked: list[ScoredRationale]) -> list[ScoredRationale]:
    """The first rationale of each question, of the first few questions."""
    kept: dict[str, ScoredRationale] = {}
    for scored in ranked:
        if len(kept) == SHOWN:
            break
        kept.setdefault(scored.question_id, scored)
    return list(kept.values())


def _draw(found: list[Difference], seed: int) -> list[Difference]:
    ordered = sorted(found, key=lambda each: (each.split, each.question_id))
    return keyed_random(seed, "report examples").sample(ordered, min(SHOWN, len(ordered)))


def _questions(folder: RunFolder, split: str) -> dict[str, str]:
    """Question texts by id, with the choices in a line of their own."""
    path = folder.questions(split)
    if not path.exists():
        return {}
    rows = pq.read_table(path, columns=["id", "question", "choices"]).to_pylist()
    return {row["id"]: "\n".join([row["question"], *([" | ".join(row["choices"])] if row["choices"] else [])]) for row in rows}
