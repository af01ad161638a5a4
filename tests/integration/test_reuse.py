"""`data.rationales`: another run folder's answers are taken over, and nothing wrong with them."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from asked_teacher import AskedTeacher
from ray import cloudpickle

from qcrd_ray.errors import UserError
from qcrd_ray.rationales import check_reuse, generate, take_over
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import dump_recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks.splits import load_split

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers have no tests
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def make(root: Path, *, questions: int = 12, taken: Path | None = None, **changes) -> Recipe:
    tree = {
        "name": "reuse",
        "run": str(root),
        "task": {"kind": "word_problems"},
        "data": {
            "train": {"generate": questions, "seed": 1},
            "validation": {"generate": 3, "seed": 2},
            "test": {"generate": 3, "seed": 3},
            "rationales": taken and str(taken),
        },
        "teacher": {"source": "recording", "path": "unused.jsonl"},
        "sampling": {"k": 2},
        "student": {"scratch": {}},
        "ray": {"address": "local", "num_cpus": 8},
    }
    return Recipe.model_validate(tree | changes)


class Undecided(AskedTeacher):
    """Two answers to each question, of which the vote makes a tie."""

    async def complete(self, asks):
        answers = await super().complete(asks)
        other = "3 and 5 make 9. So the answer is 9."
        return [
            replace(
                each,
                completions=(each.completions[0], replace(each.completions[1], text=other)),
            )
            for each in answers
        ]


@pytest.fixture(scope="module")
def old(tmp_path_factory, local_ray) -> RunFolder:
    """A run folder whose teacher was asked, and was undecided."""
    root = tmp_path_factory.mktemp("old")
    recipe, folder = make(root), RunFolder(root)
    folder.recipe.write_text(dump_recipe(recipe))
    generate(recipe, folder, teacher=Undecided(root, k=2))
    return folder


def taken_over(recipe: Recipe, root: Path, *, teacher=None):
    folder, teacher = RunFolder(root), teacher or Undecided(root, k=2)
    root.mkdir(exist_ok=True)
    take_over(recipe, folder, ["train", "test"])
    return generate(recipe, folder, teacher=teacher), folder, teacher.asked()


def test_nothing_is_asked_again_for_another_training(old, tmp_path):
    """Bug guarded: a changed `train.rounds` cost the whole teacher a second time."""
    recipe = make(tmp_path / "new", taken=old.root, train={"rounds": 3})
    manifest, folder, asked = taken_over(recipe, tmp_path / "new")
    assert asked == [] and manifest.outcomes["no_consensus"] == 12
    assert folder.read_rationales("train").equals(old.read_rationales("train"))
    assert check_reuse(recipe, load_split(recipe, "train")[0]).startswith("12 of 12 questions")


def test_what_is_new_is_asked(old, tmp_path):
    recipe = make(tmp_path / "new", taken=old.root, questions=14)
    manifest, _, asked = taken_over(recipe, tmp_path / "new")
    assert len(asked) == 2 and manifest.rows == 14
    assert check_reuse(recipe, load_split(recipe, "train")[0]).startswith("12 of 14 questions")


def test_an_unfinished_run_is_taken_over_too(old, tmp_path):
    """Its journals, which no call has merged yet."""
    half = RunFolder(shutil.copytree(old.root, tmp_path / "half"))
    rows = half.rationales("train") / "rows"
    (file,) = rows.glob("*.parquet")
    table = old.read_rationales("train")
    pq.write_table(table.slice(0, 5), file)
    (rows / "00000").mkdir()
    lines = [json.dumps(row) + "\n" for row in table.slice(5, 4).to_pylist()]
    (rows / "00000" / "000000-x-y.jsonl").write_text("".join(lines) + '{"id": "torn')
    recipe = make(tmp_path / "new", taken=half.root)
    _, _, asked = taken_over(recipe, tmp_path / "new")
    assert len(asked) == 3


def test_votes_are_counted_anew(old, tmp_path):
    """Tied rows are of use under another `vote.tie`; their texts were paid for, not their vote."""
    recipe = make(tmp_path / "new", taken=old.root, vote={"tie": "first"})
    manifest, folder, asked = taken_over(recipe, tmp_path / "new")
    assert asked == [] and manifest.outcomes["accepted"] == 12
    rows = folder.read_rationales("train").to_pylist()
    assert {row["vote"] for row in rows} == {"8"}
    assert {tuple(each["role"] for each in row["completions"]) for row in rows} == {
        ("positive", "negative")
    }


def test_a_second_call_takes_nothing_over_again(old, tmp_path):
    recipe = make(tmp_path / "new", taken=old.root, questions=14)
    _, folder, _ = taken_over(recipe, tmp_path / "new")
    before = folder.read_rationales("train")
    _, _, asked = taken_over(recipe, tmp_path / "new", teacher=Undecided(tmp_path, k=2))
    assert folder.read_rationales("train").equals(before) and asked == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling": {"k": 3}}, r"asked otherwise in .*\n  sampling\.k: 2 there, 3 here"),
        ({"seed": 5}, r"seed: 0 there, 5 here"),
        (
            {"task": {"kind": "word_problems", "instruction": "Answer."}},
            r"task\.instruction: None there, 'Answer\.' here",
        ),
    ],
)
def test_what_was_asked_otherwise_is_not_taken_for_the_same(old, tmp_path, changes, words):
    recipe = make(tmp_path / "new", taken=old.root, **changes)
    with pytest.raises(UserError, match=words):
        take_over(recipe, RunFolder(tmp_path / "new"), ["train"])
    assert not (tmp_path / "new").exists()


def test_other_questions_and_other_folders_are_refused(old, tmp_path):
    recipe = make(tmp_path / "new", taken=old.root)
    other = load_split(
        make(
            tmp_path / "x",
            data={
                "train": {"generate": 9, "seed": 5},
                "validation": {"generate": 1, "seed": 2},
                "test": {"generate": 1, "seed": 3},
            },
        ),
        "train",
    )[0]
    with pytest.raises(UserError, match="no answer to any of the 9 training questions"):
        check_reuse(recipe, other)
    with pytest.raises(UserError, match="is no run folder with rationales"):
        check_reuse(make(tmp_path / "new", taken=tmp_path), other)
    with pytest.raises(UserError, match="give a folder of a disk"):
        check_reuse(
            make(tmp_path / "new").model_copy(
                update={"data": recipe.data.model_copy(update={"rationales": "s3://bucket/run"})}
            ),
            other,
        )
