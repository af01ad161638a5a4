"""The reference of a training: the student that it started from, kept beside the one that learns, for objectives that compare the two.

Every worker holds it whole, without gradients or optimizer: as much memory again as the student's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch

from qcrd_ray.method.objectives import Objective
from qcrd_ray.method.reference import refer, reference_losses
from qcrd_ray.method.student import StudentStep, load_student
from qcrd_ray.recipe import Recipe
from qcrd_ray.training.data import RoundQuestion
from qcrd_ray.training.world import World

_BATCH = 16  # questions, each with all of its candidates


class Reference:
    """The student in ``start``, frozen, in the precision that training runs in: before the first step both say the same."""

    def __init__(self, recipe: Recipe, objective: Objective, start: Path, *, pad: int, world: World):
        student = load_student(start, dropout=0.0, trust_remote_code=recipe.student.trust_remote_code)
        dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
        self.start = StudentStep(student, objective).to(world.device, dtype).requires_grad_(False)
        self.objective, self.pad, self.world = objective, pad, world

    def score(self, questions: Mapping[int, RoundQuestion]) -> dict[int, RoundQuestion]:
        """The same questions with a reference on every candidate. Each worker scores its share, and all get all of them."""
        examples = [question.example for question in questions.values()]
        sizes = [sum(map(len, self.objective.candidates(example))) for example in examples]
        ends = list(accumulate(sizes))
        losses = torch.zeros(sum(sizes))
        mine = range(self.world.rank, len(examples), self.world.size)
        found = reference_losses(self.start, [examples[i] for i in mine], pad=self.pad, batch_size=_BATCH)
        for i, own in zip(mine, found, strict=True):
            losses[ends[i] - sizes[i] : ends[i]] = torch.tensor(own)
        flat = self.world.sum(losses).tolist()
        return {
            index: replace(question, example=refer(example, self.objective, flat[end - size : end]))
            for (index, question), example, size, end in zip(questions.items(), examples, sizes, ends, strict=True)
        }
