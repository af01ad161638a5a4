"""A recording as teacher: completions that were generated earlier.

It is JSON Lines with one completion a line: the question's id, the completion's text, and its
finish reason where it is known. K completions of a question are chosen at random by the seed, since
recordings are often sorted, by correctness for example.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from qcrd_ray.data.json_lines import expand_path, read_json_lines
from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RecordedTeacher, SamplingRecipe
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher.base import TeacherAnswer, TeacherRequest


class Recording:
    """Answers from a file.

    Where it holds fewer than K completions of a question, it returns those: the vote decides.
    """

    def __init__(self, recipe: RecordedTeacher, sampling: SamplingRecipe, *, seed: int):
        self._recipe = recipe
        self._k = sampling.k
        self._seed = seed
        self._recorded: dict[str, list[Completion]] = {}

    def identity(self) -> dict[str, Any]:
        """The file's content, not its name: after a move nothing is asked again."""
        with expand_path(self._recipe.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "source": "recording",
            "sha256": digest,
            "columns": dict(sorted(self._recipe.columns.items())),
        }

    def prompt(self, task: Task, question: Question) -> str:
        return task.teacher_prompt(question)

    def check(self, questions: Sequence[Question]) -> None:
        """Read the whole file once, and refuse a recording of other questions.

        Raises:
            UserError: the file is missing, a line cannot be read, or no question of the split
                occurs in it.
        """
        recorded = read_recording(self._recipe)
        if any(question.id in recorded for question in questions):
            return
        question_ids, recorded_ids = (
            ", ".join(map(repr, list(ids)[:3]))
            for ids in ([question.id for question in questions], recorded)
        )
        raise UserError(
            f"teacher.path: {self._recipe.path} holds no completion for any question of this"
            f" split\n  ids of the questions: {question_ids}"
            f"\n  ids of the recording: {recorded_ids}"
            "\nName the columns that hold the same ids with data.columns.id and"
            " teacher.columns.id."
        )

    def start(self, report: Report = no_progress) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to stop."""

    async def complete(self, requests: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        # once in each process that asks
        self._recorded = self._recorded or read_recording(self._recipe)
        return [TeacherAnswer(self._choose(request.question.id)) for request in requests]

    def _choose(self, question_id: str) -> tuple[Completion, ...]:
        recorded = self._recorded.get(question_id, [])
        if len(recorded) <= self._k:
            return tuple(recorded)
        return tuple(random.Random(f"{self._seed}:{question_id}").sample(recorded, self._k))


def read_recording(recipe: RecordedTeacher) -> dict[str, list[Completion]]:
    """The recorded completions by question id, in the file's order.

    Raises:
        UserError: the file is missing or empty, or a line of it is no JSON object or has no id or
            no completion. A bad line is not skipped: its question would silently get another vote.
    """
    recorded: dict[str, list[Completion]] = defaultdict(list)
    for line in read_json_lines(recipe.path):
        if line.data is None:
            raise UserError(
                f"{recipe.path}:{line.number}: {line.reason}; fix or delete this line of the"
                " recording"
            )
        finish_reason = (
            line.data.get(recipe.columns.get("finish_reason", "finish_reason")) or "stop"
        )
        completion = Completion(
            text=_field(recipe, line.number, line.data, "completion"),
            finish_reason=str(finish_reason),
        )
        recorded[_field(recipe, line.number, line.data, "id")].append(completion)
    return dict(recorded)


def _field(
    recipe: RecordedTeacher, number: int, row: dict[str, Any], field: Literal["id", "completion"]
) -> str:
    """The text of ``field`` in the row of line ``number``."""
    name = recipe.columns.get(field, field)
    if row.get(name) is None:
        columns = ", ".join(map(repr, row)) or "no column"
        raise UserError(
            f"{recipe.path}:{number}: no {name!r} in this row, which has {columns}; name the"
            f" column with teacher.columns.{field}"
        )
    return str(row[name])
