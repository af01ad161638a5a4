"""The package from Python: recipes as objects, a student in memory, and an import that is fast."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest
from endpoint_tiny import with_judge

import qcrd_ray
import qcrd_ray.runs.folder
from qcrd_ray.api import load_recipe, load_student
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, TrainRecipe
from qcrd_ray.recipe.file import dump_recipe

TREE = {
    "name": "x",
    "run": "runs/x",
    "task": {"kind": "word_problems"},
    "data": {split: {"generate": 3} for split in ("train", "validation", "test")},
    "teacher": {"source": "recording", "path": "t.jsonl"},
    "student": {"scratch": {}},
    "train": {"rounds": 7, "batch_size": 8},
}


def test_the_import_alone_loads_nothing_heavy():
    """Bug guarded: a notebook's first cell that takes ten seconds."""
    code = (
        "import sys, qcrd_ray; qcrd_ray.__version__\n"
        "print([n for n in ('ray', 'torch', 'transformers', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_there_is_has_its_name():
    assert qcrd_ray.load_recipe is load_recipe and qcrd_ray.load_student is load_student
    with pytest.raises(AttributeError, match="has no attribute 'lode_recipe'"):
        qcrd_ray.lode_recipe  # noqa: B018


def test_no_package_takes_the_name_of_a_function():
    """Bug guarded: `import qcrd_ray.run.folder` put that package in the place of `run`."""
    packages = {module.name for module in pkgutil.iter_modules(qcrd_ray.__path__)}
    assert not packages & set(qcrd_ray._API)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"rounds": 4}},
        {"train__rounds": 4},
        {"train.rounds": 4},
    ],
)
def test_a_key_is_changed_and_its_neighbours_stay(tmp_path, changes):
    (tmp_path / "r.yaml").write_text(dump_recipe(Recipe.model_validate(TREE)))
    for source in (
        TREE,
        Recipe.model_validate(TREE),
        tmp_path / "r.yaml",
        str(tmp_path / "r.yaml"),
    ):
        recipe = load_recipe(source, run=tmp_path, **changes)
        assert (recipe.train.rounds, recipe.train.batch_size) == (4, 8)
        assert recipe.run == str(tmp_path)
    assert TREE["train"]["rounds"] == 7, "the caller's own mapping stays as it was"


def test_a_section_and_an_alias_can_be_given(tmp_path):
    recipe = load_recipe(TREE, train=TrainRecipe(rounds=3, validate={"every_rounds": 2}))
    assert (recipe.train.rounds, recipe.train.validate_.every_rounds) == (3, 2)
    other = load_recipe(recipe, teacher={"source": "serve", "model": "demo"})
    assert other.teacher.source == "serve", "another source replaces the section"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"rounds": 0}}, r"train=\.\.\.: train\.rounds: expected at least 1, not 0"),
        ({"train__round": 3}, r"train\.round: expected keys and values"),
        ({"trian": {}}, r"trian: there is no such key; did you mean train\?"),
    ],
)
def test_a_wrong_key_is_named_as_it_was_given(changes, words):
    with pytest.raises(UserError, match=words):
        load_recipe(TREE, **changes)


def test_a_student_answers_as_predict_does(exported_student):
    student = load_student(exported_student)
    asked = ["1 + 1?", {"id": 7, "question": "2 + 2?", "answer": "unused"}]
    first, second = student.predict(asked)
    assert first.keys() == second.keys() == {"label", "text"}
    (full,) = student.predict(["1 + 1?"], rationale=True, quality=True, samples=3)
    assert full["text"] == first["text"] and 0 <= full["quality"] <= 1
    assert (
        full["vote_kind"] == "plain" and {"rationale", "rationale_answer", "votes"} <= full.keys()
    )
    assert student.predict([]) == []


def test_a_judge_weighs_votes_where_there_is_one(exported_student, tmp_path):
    student = load_student(with_judge(exported_student, tmp_path / "judged"))
    kinds = [
        student.predict(["1 + 1?"], samples=3, vote=vote)[0]["vote_kind"]
        for vote in (None, "judged", "plain")
    ]
    assert kinds == ["judged", "judged", "plain"]


@pytest.mark.parametrize(
    ("questions", "options", "words"),
    [
        ("1 + 1?", {}, "put the one into brackets"),
        (["1 + 1?", ""], {}, r"questions\[1\]: the question is empty"),
        ([{"question": "x" * 30_000}], {}, r"questions\[0\]: .* over task\.max_question_chars"),
        (["1 + 1?"], {"samples": 3, "vote": "judged"}, "holds no judge"),
    ],
)
def test_a_mistake_names_its_question(exported_student, questions, options, words):
    with pytest.raises(UserError, match=words):
        load_student(exported_student).predict(questions, **options)
