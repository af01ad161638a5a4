"""The questions of a split, read once and kept in the run folder as every later stage takes
them.
"""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from qcrd_ray.data.records import QUESTION_SCHEMA, Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import write_table
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.reading import Rejected, read_questions

REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("reason", pa.string()), ("text", pa.string())]
)


def load_split(recipe: Recipe, split: str) -> tuple[list[Question], list[Rejected]]:
    """Read a split (`train`, `validation`, `test`, `held_out`) from its source.

    Raises:
        UserError: see :func:`qcrd_ray.tasks.reading.read_questions`; it begins with the key of the
            split.
    """
    task = build_task(recipe.task)
    data, limit = recipe.data, recipe.task.max_question_chars
    try:
        return read_questions(
            getattr(data, split),
            task=task,
            columns=data.columns,
            values=data.values,
            kind=recipe.task.kind,
            max_chars=limit,
        )
    except UserError as error:
        raise UserError(f"data.{split}: {error}") from error


def read_split(
    recipe: Recipe, folder: RunFolder, split: str
) -> tuple[list[Question], list[Rejected]]:
    """:func:`load_split`, written into the run folder as every later stage takes it."""
    questions, rejected = load_split(recipe, split)
    write_table(
        pa.Table.from_pylist([asdict(question) for question in questions], schema=QUESTION_SCHEMA),
        folder.questions(split),
    )
    write_table(
        pa.Table.from_pylist([asdict(row) for row in rejected], schema=REJECTED_SCHEMA),
        folder.rejected(split),
    )
    return questions, rejected
