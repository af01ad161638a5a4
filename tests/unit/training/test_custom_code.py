"""A student with its own code (`auto_map`) trains if the recipe trusts it, and not otherwise."""

from __future__ import annotations

import pytest
from custom_code import CLASS, write_custom_t5
from training_tiny import tiny_recipe, write_run

from qcrd_ray.errors import UserError
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.models.pretrained import load_model
from qcrd_ray.recipe import DiscriminatorRecipe, StudentRecipe
from qcrd_ray.training.start_models import check_start
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import train_in_process


def custom_recipe(model, *, trust: bool):
    recipe = {
        "student.scratch": None,
        "student.model": str(model),
        "student.trust_remote_code": trust,
        "train.rounds": 2,
        "train.round.size": 1,
        "train.workers": 1,
        "train.zero_stage": 0,
    }
    return tiny_recipe(**recipe)


def test_a_trusted_student_with_its_own_code_trains(tiny_student, tmp_path):
    """Guards trust_remote_code through every part that reads the model or its tokenizer.

    Those are the student, the discriminator, the sampler of negatives and validation.
    """
    model = write_custom_t5(tiny_student, tmp_path / "model")
    job = prepare_job(custom_recipe(model, trust=True), write_run(tmp_path / "run"), "qcrd")
    job.folder.mkdir()
    train_in_process(job)
    best = job.folder / "best"
    assert type(load_model(best, trust_remote_code=True)).__name__ == CLASS
    discriminator = Discriminator.load(best / "discriminator", trust_remote_code=True)
    assert 0.0 < discriminator.score([(5, 6, 1)])[0] < 1.0
    with pytest.raises(ValueError, match="shouting_t5"):
        Discriminator.load(best / "discriminator")


def test_a_reference_of_a_trusted_student_loads_its_code(tiny_student, tmp_path):
    model = write_custom_t5(tiny_student, tmp_path / "model")
    recipe = custom_recipe(model, trust=True).model_copy(deep=True)
    changes = {"objective": recipe.objective.model_copy(update={"selection": "sampling"})}
    job = prepare_job(recipe.model_copy(update=changes), write_run(tmp_path / "run"), "dpo")
    job.folder.mkdir()
    train_in_process(job)
    assert (job.folder / "best" / "config.json").exists()


def test_an_untrusted_student_with_its_own_code_is_refused_first(tiny_student, tmp_path):
    """The message names the key, and nothing is written before it."""
    model = write_custom_t5(tiny_student, tmp_path / "model")
    folder = write_run(tmp_path / "run")
    with pytest.raises(
        UserError,
        match=r"student\.trust_remote_code: .*model brings Python code of its own .* to true",
    ):
        prepare_job(custom_recipe(model, trust=False), folder, "qcrd")
    assert not (folder.root / "train").exists()


def test_a_discriminators_own_model_may_bring_no_code(tiny_student, tmp_path):
    """`student.trust_remote_code` says nothing about another model's code."""
    model = write_custom_t5(tiny_student, tmp_path / "model")
    with pytest.raises(UserError, match=r"^discriminator\.model: "):
        check_start(
            StudentRecipe(model=str(tiny_student), trust_remote_code=True),
            DiscriminatorRecipe(model=str(model)),
        )
