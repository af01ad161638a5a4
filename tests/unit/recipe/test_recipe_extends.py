"""A recipe over another: sections are laid over each other, and a mistake is named in the file that
holds it.
"""

from __future__ import annotations

import pytest
from test_recipe_file import RECIPE, mistake

from qcrd_ray.recipe.file import dump_recipe, load_recipe


@pytest.fixture
def files(tmp_path):
    """Write files by name below tmp_path; returns the path of the last."""

    def _write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return path

    return _write


def test_sections_are_laid_over_each_other(files):
    path = files(
        base=RECIPE
        + "sampling: {k: 7, temperature: 0.5}\ncompare: {variants: {a: {set: {seed: 1}}}}\n",
        over=(
            "extends: base.yaml\nname: other\nsampling: {k: 3}\ndata: {train: {rows: [0,"
            " 5]}}\ncompare: {variants: {b: {set: {seed: 2}}}}\nstudent: {model: null, scratch:"
            " {d_model: 8}}\n"
        ),
    )
    recipe = load_recipe(path, ["sampling.temperature=0.9"])
    assert (recipe.name, recipe.run, recipe.sampling.k, recipe.sampling.temperature) == (
        "other",
        "runs/small",
        3,
        0.9,
    )
    assert (recipe.data.train.path, recipe.data.train.rows, recipe.data.test.rows) == (
        "train.jsonl",
        (0, 5),
        None,
    )
    assert (
        sorted(recipe.compare.variants) == ["a", "b"]
        and recipe.student.model is None
        and recipe.student.scratch.d_model == 8
    )
    assert "extends" not in dump_recipe(recipe)


def test_a_chain_of_recipes_is_relative_to_each_ones_folder(files):
    path = files(
        base=RECIPE,
        sub__middle="extends: ../base.yaml\nseed: 4\ntrain: {rounds: 5}\n",
        sub__top="extends: middle.yaml\nseed: 6\n",
    )
    recipe = load_recipe(path)
    assert (recipe.seed, recipe.train.rounds, recipe.name) == (6, 5, "small")


def test_another_source_replaces_the_whole_section(files):
    """Bug guarded: a recording that would inherit a served teacher's model, and be refused for
    it.
    """
    path = files(
        base=RECIPE, over="extends: base.yaml\nteacher: {source: recording, path: x.jsonl}\n"
    )
    assert load_recipe(path).teacher.path == "x.jsonl"
    assert (
        load_recipe(
            files(over="extends: base.yaml\nteacher: {max_replicas: 3}\n")
        ).teacher.max_replicas
        == 3
    )


def test_two_keys_that_are_one_in_yaml_stay_two(files):
    """Bug guarded: an alias is the same object twice, and laying keys over one of them would change
    both.
    """
    base = RECIPE.replace("train: {path: train.jsonl}", "train: &t {path: train.jsonl}").replace(
        "validation: {path: validation.jsonl}", "validation: *t"
    )
    recipe = load_recipe(files(base=base, over="extends: base.yaml\ndata: {train: {shuffle: 3}}\n"))
    assert (recipe.data.train.shuffle, recipe.data.validation.shuffle) == (3, None)


@pytest.mark.parametrize(
    ("base", "over", "message"),
    [
        (
            "",
            "extends: base.yaml\ntrain:\n  rounds: 0\n",
            "over.yaml:3: train.rounds: expected at least 1",
        ),
        (
            "sampling: {k: 0}\n",
            "extends: base.yaml\nseed: 3\n",
            "base.yaml:16: sampling.k: expected at least 1",
        ),
        (
            "",
            "extends: base.yaml\ntrain: {workers: 99}\n",
            "over.yaml:2: train: batch_size (64) is below workers (99)",
        ),
        ("train:\n", "extends: base.yaml\n", "base.yaml:16: train is given twice"),
        ("", "extends: bass.yaml\n", "over.yaml:1: extends: there is no recipe "),
        (
            "",
            "name: x\nextends: [base.yaml]\n",
            "over.yaml:2: extends: expected the path of a recipe",
        ),
        (
            "",
            "extends: over.yaml\n",
            "over.yaml:1: extends: over.yaml -> over.yaml goes in a circle",
        ),
        (
            "extends: over.yaml\n",
            "extends: base.yaml\n",
            "base.yaml:16: extends: over.yaml -> base.yaml -> over.yaml goes in a circle",
        ),
    ],
)
def test_a_mistake_is_named_in_its_own_file(files, base, over, message):
    assert message in mistake(files(base=RECIPE + base, over=over))


def test_extending_a_list_is_refused(files):
    assert "a recipe is a mapping of keys" in mistake(
        files(base="- name\n", over="extends: base.yaml\n")
    )


def test_an_override_cannot_extend(files):
    assert "extends: there is no such key" in mistake(files(base=RECIPE), "extends=base.yaml")
