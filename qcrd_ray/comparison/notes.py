"""What a comparison's numbers must be read with: test questions that a method was trained on, and texts that were cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from qcrd_ray.notes import overlap_note, same_questions, truncation_note
from qcrd_ray.records import Question
from qcrd_ray.training.job import TrainingJob


def data_notes(tables: Mapping[str, pa.Table], jobs: Mapping[str, TrainingJob], questions: Mapping[str, Sequence[Question]]) -> list[str]:
    """Notes on the data, none where there is nothing to tell.

    Args:
        tables: the rationales that were trained on (RATIONALE_SET_SCHEMA), under the key of the recipe that they are from.
        jobs: the training of each method. A text that was cut for some methods only is told with their names.
        questions: those of each test split.
    """
    return [*_overlaps(tables, questions), *_cuts(jobs)]


def _overlaps(tables: Mapping[str, pa.Table], questions: Mapping[str, Sequence[Question]]) -> Iterator[str]:
    for name, table in tables.items():
        for split, asked in questions.items():
            if ids := same_questions(asked, _questions(table)):
                yield overlap_note(split, ids, of=len(asked), training=name)


def _questions(table: pa.Table) -> Iterator[Question]:
    for batch in table.select(["question_id", "question", "choices"]).to_batches():
        for row in batch.to_pylist():
            yield Question(id=row["question_id"], question=row["question"], choices=tuple(row["choices"]))


def _cuts(jobs: Mapping[str, TrainingJob]) -> list[str]:
    methods: dict[str, list[str]] = {}
    for name, job in jobs.items():
        methods.setdefault(truncation_note(job.manifest, job.recipe.student), []).append(name)
    return [note if len(names) == len(jobs) else f"{', '.join(names)}: {note}" for note, names in methods.items() if note]
