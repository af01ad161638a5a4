"""The JSON schema agrees with the recipes that lie in the repository."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from qcrd_ray.recipe.file import dump_recipe, load_recipe
from qcrd_ray.recipe.schema import recipe_schema

ROOT = Path(__file__).resolve().parents[3] / "jobs" / "recipes"
# paper/base.yaml is no recipe by itself: the others extend it
RECIPES = [file for file in sorted(ROOT.rglob("*.yaml")) if file.name != "base.yaml"]


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_of_the_repository_is_valid(file, validator):
    validator.validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_so_is_every_whole_recipe(file, validator):
    """What it extends merged in, and every default written out."""
    validator.validate(yaml.safe_load(dump_recipe(load_recipe(file))))


def test_a_recipe_that_extends_another_may_change_one_key(validator):
    validator.validate({"extends": "demo.yaml", "data": {"train": {"rows": [0, 8]}}})
    validator.validate({"extends": "demo.yaml", "teacher": {"max_replicas": 2}})


@pytest.mark.parametrize(
    "change",
    [
        {"trian": {}},
        {"train": {"round": 3}},
        {"train": {"validate": {"evry_rounds": 2}}},
        {"teacher": {"source": "serve", "modle": "demo"}},
        {"sampling": {"k": "five"}},
        {"data": None},
    ],
)
def test_a_mistake_is_found(change, validator):
    recipe = yaml.safe_load((ROOT / "demo.yaml").read_text())
    assert not validator.is_valid(recipe | change)
