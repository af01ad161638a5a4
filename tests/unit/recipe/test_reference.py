"""docs/recipe.md is what the sections' types and docstrings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.base import Section
from qcrd_ray.recipe.introspection import fields, keys, sections, type_text
from qcrd_ray.recipe.reference import render

PAGE = Path(__file__).resolve().parents[3] / "docs" / "recipe.md"


def test_the_page_is_up_to_date():
    """Write it again with `python -m qcrd_ray.recipe.reference > docs/recipe.md`."""
    assert PAGE.read_text(encoding="utf-8") == render()


def test_every_key_is_described():
    def undescribed(model: type[Section], prefix: str = ""):
        for key, field in fields(model).items():
            inner = sections(field.annotation)
            if not field.description and not (prefix == "" and inner):  # their class describes them
                yield prefix + key
            for section in inner:
                yield from undescribed(section, f"{prefix}{key}.")

    assert list(undescribed(Recipe)) == []


def test_every_key_stands_on_the_page():
    page = render()
    shared = ("cpus", "gpus", "resources")
    for key in keys(Recipe):
        section, _, last = key.rpartition(".")
        if f"`{key}`" not in page and section:
            # a section that several keys hold is described once, without their prefix
            assert f"| `{last}` |" in page, key
            assert last in shared or section.startswith(("data.", "compare.control")), key


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("seed", "whole number"),
        ("train.learning_rate", "number > 0"),
        ("discriminator.label_smoothing", "number ≥ 0 and < 0.5"),
        ("negatives.lag", "whole number ≥ 1, or `auto`"),
        ("student.lora", "section, or null"),
        ("student.dropout", "number ≥ 0 and ≤ 1, or null"),
        ("task.thinking", "list of 2 texts, or null"),
        ("sampling.stop", "list of texts"),
        ("data.columns", "mapping to text, or list of texts"),
        ("evaluate.base", "true or false"),
        ("vote.tie", "`no_consensus`, `first`"),
    ],
)
def test_a_type_is_put_in_words(key, text):
    model, field = Recipe, None
    for part in key.split("."):
        field = fields(model)[part]
        model = next(iter(sections(field.annotation)), model)
    assert type_text(field) == text
