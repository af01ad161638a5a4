"""Both engines side by side in one process group, in every ZeRO stage and precision."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer

from qcrd_ray.method.examples import Example, Rationale
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective
from qcrd_ray.recipe import Recipe
from qcrd_ray.training.discriminator_learner import DiscriminatorLearner
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.student_learner import StudentLearner

STAGES = (0, 1, 2, 3)
PRECISIONS = ("fp32", "bf16")


def examples() -> list[Example]:
    """Four questions with two rationales a side."""

    def tokens(length: int, first: int) -> tuple[int, ...]:
        return (*(7 + (first * 31 + i * 7) % 200 for i in range(length)), 1)

    def side(first: int) -> tuple[Rationale, ...]:
        return tuple(
            Rationale(tokens=tokens(5 + i, first + i), score=0.7, weight=0.7) for i in range(2)
        )

    return [
        Example(
            predict=tokens(6, i),
            explain=tokens(7, i + 10),
            label=tokens(1, i),
            positives=side(i + 20),
            negatives=side(i + 40),
        )
        for i in range(4)
    ]


def train_both(
    recipe: Recipe, start: Path, process_group: ProcessGroup, *, questions: list, task
) -> tuple[list[float], float]:
    """The student's losses over four steps in two micro-batches each, and D's loss."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    objective = build_objective(ObjectiveConfig())
    student = StudentLearner(
        start,
        recipe.student,
        recipe.train,
        objective=objective,
        tokenizer=tokenizer,
        total_steps=8,
        seed=0,
        process_group=process_group,
    )
    discriminator = DiscriminatorLearner(
        start,
        recipe.discriminator,
        recipe.train,
        task=task,
        tokenizer=tokenizer,
        words=["pens", "boxes"],
        seed=0,
        trust_remote_code=False,
        process_group=process_group,
    )
    losses = []
    for step in range(4):
        sums, _ = student.step(step, examples())
        losses.append(objective.metrics(process_group.sum(sums))["loss"])
        metrics = discriminator.train(questions, steps=1, phase=f"round {step}")
    return losses, metrics["loss"]


def on_gpu() -> bool:
    """Whether there is a GPU."""
    return torch.cuda.is_available()
