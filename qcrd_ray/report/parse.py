"""`qcrd parse`: what a recipe's task reads from recorded texts, one by one, and in total."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qcrd_ray.data.json_lines import find_file, read_line
from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.vote import hold_vote
from qcrd_ray.recipe import Recipe, RecordedTeacher
from qcrd_ray.report.reading import SHOWN, ReadingSummary
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Parsed, Task
from qcrd_ray.tasks.splits import load_split
from qcrd_ray.tasks.thinking import read_completion

STDIN = Path("-")


def parse_texts(recipe: Recipe, file: Path) -> Iterator[str]:
    """A line for each text of ``file``, and the totals at the end.

    The file is JSON Lines with `id` and `completion`, under the recipe's `teacher.columns` where
    its teacher is a recording. The question of an id is that of the recipe's data, or the row's own
    `question` and `choices`.

    Args:
        file: "-" is standard input.

    Raises:
        UserError: a row cannot be read, or its question is not known and has choices.
    """
    task = build_task(recipe.task)
    questions = _questions(recipe)
    samples: dict[str, list[Completion]] = {}
    for number, row in _rows(file):
        id, text, finish_reason = _fields(recipe, file, number, row)
        question = questions.get(id) or _own_question(id, row)
        if recipe.task.kind == "multiple_choice" and not question.choices:
            raise UserError(
                f"{file}:{number}: {id!r} is no question of the recipe's data, and the row has no"
                " `choices`; name the column that holds the same ids with data.columns.id"
            )
        questions[id] = question
        _, parsed = read_completion(text, task, question, marks=recipe.task.thinking)
        samples.setdefault(id, []).append(
            Completion(
                text=text, finish_reason=finish_reason, answer=parsed.answer, reason=parsed.reason
            )
        )
        yield _line(id, text, parsed, question)
    yield ""
    yield from _totals(recipe, task, questions, samples).lines()


def _line(id: str, text: str, parsed: Parsed, question: Question) -> str:
    if parsed.answer is None:
        return f"{id}: unread, {parsed.reason}: ...{' '.join(text.split())[-SHOWN:]!r}"
    right = {None: "", True: ", right", False: f", gold: {question.answer!r}"}[
        None if question.answer is None else parsed.answer == question.answer
    ]
    source = f" from {parsed.source!r}" if parsed.source else ""
    return f"{id}: {parsed.answer!r}{source}{right}"


def _totals(
    recipe: Recipe, task: Task, questions: dict[str, Question], samples: dict[str, list[Completion]]
) -> ReadingSummary:
    summary = ReadingSummary()
    for id, completions in samples.items():
        result = hold_vote(completions, k=len(completions), recipe=recipe.vote)
        rows: list[dict[str, Any]] = [
            {
                "answer": c.answer,
                "reason": c.reason,
                "finish_reason": c.finish_reason,
                "text": c.text,
            }
            for c in completions
        ]
        summary.add(
            id=id,
            gold=questions[id].answer,
            outcome=result.outcome,
            vote=result.vote,
            completions=rows,
        )
    return summary


def _questions(recipe: Recipe) -> dict[str, Question]:
    """All questions of the recipe's data by id; those that cannot be read are left out."""
    found: dict[str, Question] = {}
    for split in ("held_out", "test", "validation", "train"):
        if getattr(recipe.data, split) is not None:
            found.update({question.id: question for question in load_split(recipe, split)[0]})
    return found


def _own_question(id: str, row: dict[str, Any]) -> Question:
    choices = row.get("choices") or ()
    return Question(
        id=id, question=str(row.get("question") or ""), choices=tuple(map(str, choices))
    )


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file == STDIN:
        yield from _lines(file, sys.stdin.buffer)
        return
    with find_file(str(file)).open("rb") as content:
        yield from _lines(file, content)


def _lines(file: Path, content: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, raw in enumerate(content, 1):
        if raw.strip():
            line = read_line(number, raw.removesuffix(b"\n"))
            if line.data is None:
                raise UserError(f"{file}:{number}: {line.reason}")
            yield number, line.data


def _fields(recipe: Recipe, file: Path, number: int, row: dict[str, Any]) -> tuple[str, str, str]:
    """The id, the text and the finish reason of a row."""
    teacher = recipe.teacher
    columns = teacher.columns if isinstance(teacher, RecordedTeacher) else {}
    text = row.get(columns.get("completion", "completion"))
    if text is None:
        raise UserError(
            f"{file}:{number}: no {columns.get('completion', 'completion')!r} in this row, which"
            f" has {', '.join(map(repr, row)) or 'no column'}; name the column with"
            " teacher.columns.completion"
        )
    id = row.get(columns.get("id", "id"))
    finish_reason = row.get(columns.get("finish_reason", "finish_reason")) or "stop"
    return str(id) if id is not None else f"line {number}", str(text), str(finish_reason)
