"""Validation: greedy answers of both heads on the validation questions, shared out over the
workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from qcrd_ray.data.records import Question
from qcrd_ray.inference import load_engine
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task
from qcrd_ray.training.process_group import ProcessGroup

_BATCH = 64


class Validator:
    """Measures snapshots on ``questions`` (their answers canonical). ``heads`` are those that the
    objective trains.

    It reads the snapshot that would be kept as the best, whatever way the trained weights are
    sharded.
    """

    def __init__(
        self,
        recipe: Recipe,
        questions: Sequence[Question],
        *,
        task: Task,
        heads: Sequence[str],
        longest: dict[str, int],
        process_group: ProcessGroup,
    ):
        self.recipe, self.questions, self.task, self.heads, self.longest, self.process_group = (
            recipe,
            questions,
            task,
            heads,
            longest,
            process_group,
        )
        self._engine = None

    def measure(self, snapshot: Path) -> dict[str, float]:
        """Accuracy by head ("label", "rationale") and their "mean"."""
        if self._engine is None:
            self._engine = load_engine(
                snapshot,
                device=str(self.process_group.device),
                batch_size=_BATCH,
                max_input_tokens=self.recipe.student.max_input_tokens,
                trust_remote_code=self.recipe.student.trust_remote_code,
            )
        else:
            self._engine.load_weights(snapshot)
        mine = self.questions[self.process_group.rank :: self.process_group.size]
        right = self.process_group.sum(
            torch.tensor([float(self._right(head, mine)) for head in self.heads])
        )
        accuracies = dict(zip(self.heads, (right / len(self.questions)).tolist(), strict=True))
        return accuracies | {"mean": sum(accuracies.values()) / len(accuracies)}

    def _right(self, head: str, questions: Sequence[Question]) -> int:
        prefix = {"label": PREDICT, "rationale": EXPLAIN}[head]
        prompts = [prefix + self.task.student_input(question) for question in questions]
        texts = [
            row[0].text for row in self._engine.generate(prompts, max_tokens=self.longest[head])
        ]
        return sum(
            self._answer(head, text, question) == question.answer
            for text, question in zip(texts, questions, strict=True)
        )

    def _answer(self, head: str, text: str, question: Question) -> str | None:
        return (
            self.task.canonical(text, question)
            if head == "label"
            else self.task.parse(text, question).answer
        )
