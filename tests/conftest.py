"""Fixtures that several test folders share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory) -> Path:
    """The folder of a random T5 of 30 thousand weights with a tokenizer trained on word problems: any text, no sense."""
    from qcrd_ray.recipe import ScratchRecipe, StudentRecipe
    from qcrd_ray.tasks.word_problems import generate
    from qcrd_ray.training.start_models import write_start

    folder = tmp_path_factory.mktemp("tiny") / "student"
    recipe = StudentRecipe(scratch=ScratchRecipe(d_model=32, d_ff=64, layers=1, heads=2, vocabulary=400))
    write_start(recipe, folder, texts=[question.question for question in generate(50, seed=0)], seed=0)
    return folder
