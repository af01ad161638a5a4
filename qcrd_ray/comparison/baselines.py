"""The reference points of a comparison: the teacher, the untrained base, and a control.

The control trains on the base's own pretraining data, without a teacher.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.comparison.files import questions_key
from qcrd_ray.data.records import (
    RATIONALE_SET_SCHEMA,
    Completion,
    Outcome,
    Question,
    RationaleSet,
    Role,
)
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import (
    PREDICTION_SCHEMA,
    Prediction,
    result_rows,
    student_predictions,
    teacher_predictions,
)
from qcrd_ray.inference.heads import Head
from qcrd_ray.inference.pool import run_pool, split_jobs
from qcrd_ray.models.names import fingerprint
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_table
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.results import ResultRow
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.splits import load_questions


def control_table(recipe: Recipe) -> pa.Table:
    """The control's questions as rationale sets, each with its own rationale as the one sample.

    Raises:
        UserError: a question has no rationale or no answer.
    """
    assert recipe.compare.control is not None, "read_methods refuses the method otherwise"
    questions, _ = load_questions(recipe, recipe.compare.control)
    rows = []
    for question in questions:
        if not question.rationale or question.answer is None:
            missing = "answer" if question.rationale else "rationale"
            raise UserError(
                f"compare.control: {question.id} has no {missing}; the control is trained on"
                " questions with both"
            )
        own = Completion(
            text=question.rationale,
            rationale=question.rationale,
            answer=question.answer,
            role=Role.POSITIVE,
        )
        rows.append(
            RationaleSet(
                id=f"control-{question.id}",
                question_id=question.id,
                question=question.question,
                choices=question.choices,
                gold=question.answer,
                completions=(own,),
                outcome=Outcome.ACCEPTED,
                vote=question.answer,
                vote_share=1.0,
            ).row()
        )
    return pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA)


def measure_baselines(
    recipe: Recipe,
    folder: RunFolder,
    base: Path,
    questions: dict[str, tuple[Question, ...]],
    root: Path,
) -> list[ResultRow]:
    """The accuracies of the base and, where it was asked the test questions, of the teacher."""
    predictions = list(
        teacher_predictions(
            folder.read_rationales("test"), split="test", task=build_task(recipe.task)
        )
    )
    keys = [fingerprint(base)[:12], *map(questions_key, questions.values())]
    file = root / f"base-{'-'.join(keys)}.parquet"
    if not file.exists():
        _measure_base(recipe, base, questions, file)
    rows = pq.read_table(file, schema=PREDICTION_SCHEMA).drop_columns(["right"]).to_pylist()
    return result_rows([*predictions, *(Prediction(**row) for row in rows)])


def _measure_base(
    recipe: Recipe, base: Path, questions: dict[str, tuple[Question, ...]], file: Path
) -> None:
    parts: list[tuple[str, Head]] = [
        (split, head) for split in questions for head in ("label", "rationale")
    ]
    size = recipe.evaluate.batch_size
    work = [
        piece
        for key, (split, head) in enumerate(parts)
        for piece in split_jobs(key, base, head, questions[split], size=size)
    ]
    rows = []
    for done in run_pool(recipe, work):
        split, head = parts[done.job.key]
        made = student_predictions(
            name="student base",
            head=head,
            split=split,
            questions=done.job.questions,
            answers=done.answers,
        )
        rows += [each.row() for each in made]
    write_table(pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA), file)
