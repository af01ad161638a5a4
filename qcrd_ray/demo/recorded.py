"""Files of recorded questions, and how well a base answers their questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from qcrd_ray.data.json_lines import find_file, read_json_lines
from qcrd_ray.data.records import Question
from qcrd_ray.demo.small_models import MAX_TOKENS
from qcrd_ray.errors import UserError
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.heads import Head, answer_questions
from qcrd_ray.runs.files import write_text
from qcrd_ray.tasks.base import Task


def read_rows(file: Path, *needed: str) -> Iterator[dict]:
    """The rows of a file.

    Raises:
        UserError: there is no such file, or a row lacks one of the texts ``needed``.
    """
    file = find_file(str(file))
    for line in read_json_lines(str(file)):
        if line.data is None or not all(isinstance(line.data.get(key), str) for key in needed):
            why = line.reason or f"a row needs the texts {', '.join(needed)}"
            raise UserError(f"{file}:{line.number}: {why}")
        yield line.data


def write_rows(file: Path, rows: Sequence[dict]) -> None:
    """Write one JSON object a line."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def accuracy(folder: Path, task: Task, questions: Sequence[Question], *, head: Head) -> float:
    """The share of ``questions`` that the base in ``folder`` gets right, greedily."""
    answers = answer_questions(
        load_engine(folder), task, questions, head=head, max_tokens=MAX_TOKENS - 64
    )
    return sum(
        each.answer == task.canonical(q.answer or "", q)
        for each, q in zip(answers, questions, strict=True)
    ) / len(questions)
