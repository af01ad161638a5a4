"""What a training job makes of its recipe."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from training_tiny import tiny_recipe

from qcrd_ray.method.objectives import ObjectiveConfig
from qcrd_ray.recipe import ObjectiveRecipe
from qcrd_ray.training.job import TrainingJob, objective_config

# of the training set and of the rounds, not of the loss
DATA_KEYS = {"labels", "positives", "sft_rounds"}


def test_the_recipes_objective_and_the_methods_have_the_same_fields_and_defaults():
    """The method may not import the recipe, so both state them; a new number must stand in both."""
    section = {name: field.default for name, field in ObjectiveRecipe.model_fields.items()}
    config = {field.name: field.default for field in fields(ObjectiveConfig)}
    assert {name: value for name, value in section.items() if name not in DATA_KEYS} == config
    assert section.keys() - config.keys() == DATA_KEYS


def test_every_number_of_the_recipe_reaches_the_objective_under_another_name():
    """A baseline is trained with the recipe's numbers and a name of its own."""
    settings = tiny_recipe(
        **{"objective.beta": 0.7, "objective.selection": "sampling", "objective.dpo_guard": 3.0}
    ).objective
    config = objective_config(settings, "dpo")
    assert (config.name, config.beta, config.selection, config.dpo_guard) == (
        "dpo",
        0.7,
        "sampling",
        3.0,
    )


def job(objective, **changes):
    recipe = tiny_recipe(**{"train.rounds": 3, **changes})
    files = dict.fromkeys(("home", "folder", "validation"), Path("nowhere"))
    return TrainingJob(recipe=recipe, objective_name=objective, manifest={}, **files)


def test_the_first_rounds_have_an_objective_without_negatives():
    """Guards a phase that ends a round early or late, and a reference that is not its end."""
    phased = {"objective.sft_rounds": 2, "objective.redi_alpha": 0.3}
    objectives = [job("redi", **phased).objective_of(round) for round in range(3)]
    assert [objective.sft for objective in objectives] == [True, True, False]
    assert all(objective.config.redi_alpha == 0.3 for objective in objectives)
    assert job("redi", **phased).reference_snapshot is None, "it compares with nothing"
    assert job("dpo", **phased).reference_snapshot == 2, "snapshot 2 is the student after 2 rounds"
    assert job("dpo").reference_snapshot is None, "the start"
    plain = job("dss", **phased)
    assert plain.sft_rounds == 0 and not plain.objective_of(0).sft, "it has no pairs to wait for"


def test_a_round_must_be_left_for_the_pairs():
    with pytest.raises(ValueError, match=r"objective.sft_rounds: 3 leave none of the 3 train"):
        tiny_recipe(**{"train.rounds": 3, "objective.sft_rounds": 3})
