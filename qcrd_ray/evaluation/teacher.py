"""The teacher's own accuracy, from rationale sets that lie in the run folder: nobody is asked again."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from qcrd_ray.evaluation.predictions import Prediction
from qcrd_ray.records import Outcome, Question
from qcrd_ray.tasks.base import Task


def teacher_predictions(table: pa.Table, *, split: str, task: Task) -> Iterator[Prediction]:
    """Two predictions for each row with a gold answer: by the first sample alone, and by the vote.

    ``table`` has RATIONALE_SET_SCHEMA. One sample and not the mean over K, so that answers are as independent as the interval assumes.
    A question that the teacher failed to answer is a wrong answer here; one that was never asked (rejected input) is none.
    """
    for row in table.to_pylist():
        if row["gold"] is None or row["outcome"] == Outcome.REJECTED_INPUT:
            continue
        question = Question(id=row["question_id"], question=row["question"], choices=tuple(row["choices"] or ()), answer=row["gold"])
        gold = task.canonical(row["gold"], question)
        assert gold is not None, f"{question.id}: a gold answer that reading has let pass"
        first = (row["completions"] or [{}])[0]
        asked = {"split": split, "question_id": question.id, "gold": gold}
        yield Prediction(
            name="teacher, one sample",
            head="one sample",
            text=first.get("text"),
            answer=first.get("answer"),
            finish_reason=first.get("finish_reason", ""),
            tokens=first.get("tokens", 0),
            **asked,
        )
        yield Prediction(name="teacher, voted", head="vote", answer=row["vote"], **asked)
