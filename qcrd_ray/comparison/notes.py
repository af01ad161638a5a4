"""Notes beside a comparison's table: overlaps, cut texts, unequal budgets, other code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from qcrd_ray.data.overlap import overlap_note, same_questions
from qcrd_ray.data.records import Question
from qcrd_ray.recipe.file import flatten
from qcrd_ray.runs.manifests import truncation_note
from qcrd_ray.runs.provenance import Call, Code
from qcrd_ray.training.job import TrainingJob


def data_notes(
    tables: Mapping[str, pa.Table],
    jobs: Mapping[str, TrainingJob],
    questions: Mapping[str, Sequence[Question]],
) -> list[str]:
    """Notes on overlaps and on cut texts; none where there are none.

    Args:
        tables: the rationales that were trained on (RATIONALE_SET_SCHEMA), under the key of the
            recipe that they are from.
        jobs: the training of each method. Texts that were cut for some methods only are noted
            with these methods' names.
        questions: those of each test split.
    """
    return [*_overlaps(tables, questions), *_cuts(jobs)]


def budget_notes(
    costs: Mapping[str, Mapping[str, Any]], jobs: Mapping[str, TrainingJob]
) -> Iterator[str]:
    """A note where the methods, whose ``costs`` the table shows, were not trained for as long."""
    budgets: dict[tuple[float, float], list[str]] = {}
    for name, cost in costs.items():
        budgets.setdefault((cost["steps"], cost["questions_seen"]), []).append(name)
    if len(budgets) > 1:
        groups = "; ".join(
            f"{', '.join(names)}: {steps:,.0f} steps, {seen:,.0f} questions"
            for (steps, seen), names in budgets.items()
        )
        epochs = any(job.recipe.train.round.unit == "epochs" for job in jobs.values())
        why = (
            " (train.round.unit: epochs makes steps of the questions that each keeps, and steps"
            " gives all the same)"
            if epochs
            else ""
        )
        yield f"the methods have not had the same budget{why}: {groups}"


def code_notes(codes: Sequence[Code], call: Call) -> Iterator[str]:
    """A note for each of the trials' ``codes`` that is not the code of this ``call``."""
    for text, count in Counter(json.dumps(code) for code in codes).items():
        code = json.loads(text)
        ran, now = flatten(code), flatten({name: call[name] for name in code})
        if differing := [
            key for key in dict.fromkeys([*ran, *now]) if ran.get(key) != now.get(key)
        ]:
            other = ", ".join(
                f"{key.removeprefix('packages.')} {ran.get(key) or 'unknown'}" for key in differing
            )
            which = f"{count} of {len(codes)} trials"
            yield f"{which} were made by other code than this call's: {other}"


def _overlaps(
    tables: Mapping[str, pa.Table], questions: Mapping[str, Sequence[Question]]
) -> Iterator[str]:
    for name, table in tables.items():
        for split, asked in questions.items():
            if ids := same_questions(asked, _questions(table)):
                yield overlap_note(split, ids, of=len(asked), training=name)


def _questions(table: pa.Table) -> Iterator[Question]:
    for batch in table.select(["question_id", "question", "choices"]).to_batches():
        for row in batch.to_pylist():
            yield Question.from_row(row)


def _cuts(jobs: Mapping[str, TrainingJob]) -> list[str]:
    methods: dict[str, list[str]] = {}
    for name, job in jobs.items():
        methods.setdefault(truncation_note(job.manifest, job.recipe.student), []).append(name)
    return [
        note if len(names) == len(jobs) else f"{', '.join(names)}: {note}"
        for note, names in methods.items()
        if note
    ]
