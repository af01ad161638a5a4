"""The scores of a round, kept for a sample of its questions: ``scores/<round>.parquet`` (SCORED_RATIONALE_SCHEMA).

They are what the round was trained with, so a report needs neither the discriminator of the time nor the seconds to score again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.method.examples import Rationale, Source
from qcrd_ray.method.randomness import keyed_seed
from qcrd_ray.questions import write_table
from qcrd_ray.records import SCORED_RATIONALE_SCHEMA, ScoredAs, ScoredRationale
from qcrd_ray.training.data import RoundQuestion

SCORES = "scores"
KEPT_QUESTIONS = 200
_SCORED_AS = {source: ScoredAs.TEACHER_MINORITY if source == Source.TEACHER else ScoredAs(source.value) for source in Source}


def keep_scores(folder: Path, round: int, questions: Sequence[RoundQuestion], *, seed: int) -> None:
    """Write all scores of up to :data:`KEPT_QUESTIONS` questions: the same ones in every round that knows them, chosen by ``seed``."""
    kept = heapq.nsmallest(KEPT_QUESTIONS, questions, key=lambda question: keyed_seed(seed, "kept scores", question.row.question.id))
    rows = [asdict(scored) for question in kept for scored in _scored(question)]
    write_table(pa.Table.from_pylist(rows, schema=SCORED_RATIONALE_SCHEMA), folder / SCORES / f"{round:05d}.parquet")


def read_scores(folder: Path) -> dict[int, list[ScoredRationale]]:
    """What was kept, by round; {}: nothing."""
    files = sorted((folder / SCORES).glob("*.parquet"))
    rows = {int(file.stem): pq.read_table(file, schema=SCORED_RATIONALE_SCHEMA).to_pylist() for file in files}
    return {round: [ScoredRationale(**{**row, "scored_as": ScoredAs(row["scored_as"])}) for row in each] for round, each in rows.items()}


def _scored(question: RoundQuestion) -> Iterator[ScoredRationale]:
    def scored(rationale: Rationale, scored_as: ScoredAs) -> ScoredRationale:
        assert rationale.score is not None, question.row.question.id
        return ScoredRationale(
            question_id=question.row.question.id,
            question=question.row.question.question,
            scored_as=scored_as,
            text=question.texts[rationale.tokens],
            score=rationale.score,
            right=question.right.get(rationale.tokens) if rationale.source == Source.STUDENT else None,
        )

    for rationale in question.example.positives:
        yield scored(rationale, ScoredAs.STUDENT if rationale.source == Source.STUDENT else ScoredAs.TEACHER_POSITIVE)
    for rationale in question.example.negatives:
        yield scored(rationale, _SCORED_AS[rationale.source])
