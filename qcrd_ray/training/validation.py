"""Validation: the accuracy of a snapshot's heads on the validation questions.

Each worker answers its share. The answers come from :mod:`qcrd_ray.inference.heads` under the
limits that evaluation has, `student.max_input_tokens` and `student.max_target_tokens`, so a
student's accuracy does not depend on the stage that measures it. A label may be as long as any
target. A tighter limit, such as the longest label of the training set, would cut a longer gold
label and count it as wrong, or make a wrong answer right. The full limit costs time only with a
student that does not stop by itself, as one trained from nothing does in its first rounds: then the
label head decodes as many tokens as the rationale head does anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from qcrd_ray.data.records import Question
from qcrd_ray.inference import Engine, load_engine
from qcrd_ray.inference.heads import Head, answer_questions
from qcrd_ray.recipe import StudentRecipe
from qcrd_ray.tasks.base import Task
from qcrd_ray.training.process_group import ProcessGroup

_BATCH = 64


class Validator:
    """Measures snapshots on ``questions``, whose answers are canonical.

    ``heads`` are those that the objective trains. A snapshot is read from its folder, so it does
    not matter how the weights in training are sharded.
    """

    def __init__(
        self,
        student: StudentRecipe,
        questions: Sequence[Question],
        *,
        task: Task,
        heads: Sequence[Head],
        process_group: ProcessGroup,
    ):
        self.student, self.questions, self.task = student, questions, task
        self.heads, self.process_group = heads, process_group
        self._engine: Engine | None = None

    def measure(self, snapshot: Path) -> dict[str, float]:
        """Accuracy by head ("label", "rationale") and their "mean". All workers call it."""
        engine = self.engine(snapshot)
        share = self.questions[self.process_group.rank :: self.process_group.size]
        correct = self.process_group.sum(
            torch.tensor([float(self._correct(engine, head, share)) for head in self.heads])
        )
        accuracies: dict[str, float] = dict(
            zip(self.heads, (correct / len(self.questions)).tolist(), strict=True)
        )
        return accuracies | {"mean": sum(accuracies.values()) / len(accuracies)}

    def engine(self, snapshot: Path) -> Engine:
        """The engine with the weights of ``snapshot``; it is built once."""
        if self._engine is None:
            self._engine = load_engine(
                snapshot,
                device=str(self.process_group.device),
                batch_size=_BATCH,
                max_input_tokens=self.student.max_input_tokens,
                trust_remote_code=self.student.trust_remote_code,
            )
        else:
            self._engine.load_weights(snapshot)
        return self._engine

    def _correct(self, engine: Engine, head: Head, questions: Sequence[Question]) -> int:
        answers = answer_questions(
            engine, self.task, questions, head=head, max_tokens=self.student.max_target_tokens
        )
        return sum(
            answer.answer == question.answer
            for answer, question in zip(answers, questions, strict=True)
        )
