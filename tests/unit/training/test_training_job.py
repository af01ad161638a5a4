"""What a training job makes of its recipe."""

from __future__ import annotations

from dataclasses import fields

from training_tiny import tiny_recipe

from qcrd_ray.method.objectives import ObjectiveConfig
from qcrd_ray.recipe import ObjectiveRecipe
from qcrd_ray.training.job import objective_config

# of the training set, not of the loss
DATA_KEYS = {"labels", "positives"}


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
