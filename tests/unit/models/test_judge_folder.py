"""The judge in an exported folder: it is this student's, and brings what it needs."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from qcrd_ray.errors import UserError
from qcrd_ray.inference.evidence import feature_names
from qcrd_ray.method.judge import Judge
from qcrd_ray.models.names import fingerprint
from qcrd_ray.models.pretrained import load_model
from qcrd_ray.models.student_folder import StudentFolder, export_student
from qcrd_ray.recipe.judge import JudgeRecipe

RESULTS = {"rows": [], "notes": []}


@pytest.fixture
def run(make_run):
    return make_run()


def train_judge(folder, *, inputs):
    """Leave a judge as training does."""
    judges = folder.training("qcrd") / "judges"
    Judge(feature_names(inputs), hidden=2).save(
        judges / "judge", inputs=list(inputs), samples=4, temperature=0.8, top_p=0.95
    )
    weights = fingerprint(folder.training("qcrd") / "best")
    (judges / "quality.json").write_text(json.dumps({"student": weights}))


def asking_for_a_judge(recipe):
    return recipe.model_copy(update={"judge": JudgeRecipe(samples=4)})


@pytest.mark.parametrize("inputs", [("student", "label"), ("base", "steps")])
def test_the_judge_goes_with_the_student(run, inputs):
    """With the base beside it only if it asks the base: that doubles the folder."""
    recipe, folder = run
    train_judge(folder, inputs=inputs)
    assert StudentFolder.open(export_student(recipe, folder, results=RESULTS)).judge is None
    student = export_student(asking_for_a_judge(recipe), folder, results=RESULTS)
    judge = StudentFolder.open(student).judge
    assert judge is not None and judge.inputs == inputs
    assert (judge.samples, judge.temperature, judge.top_p) == (4, 0.8, 0.95)
    assert Judge.load(judge.path).features == feature_names(inputs)
    assert (student / "judge" / "base").is_dir() == ("base" in inputs)
    if judge.base is not None:
        weights = load_model(judge.base).state_dict()
        for name, weight in load_model(folder.root / "train" / "start").state_dict().items():
            assert torch.equal(weights[name], weight), name


def test_the_judge_of_another_student_is_not_exported(run):
    """It has learnt to judge other samples, and nothing would look wrong."""
    recipe, folder = run
    recipe = asking_for_a_judge(recipe)
    with pytest.raises(UserError, match="holds no judge of this student: run `qcrd train`"):
        export_student(recipe, folder, results=RESULTS)
    train_judge(folder, inputs=("steps",))
    best = folder.training("qcrd") / "best"
    shutil.copy(folder.training("finetune") / "best" / "model.safetensors", best)
    with pytest.raises(UserError, match="holds no judge of this student"):
        export_student(recipe, folder, results=RESULTS)
    assert not folder.student.exists()


def test_a_damaged_judge_is_told(run):
    recipe, folder = run
    train_judge(folder, inputs=("base",))
    student = export_student(asking_for_a_judge(recipe), folder, results=RESULTS)
    (student / "judge" / "base" / "config.json").unlink()
    with pytest.raises(UserError, match="base"):
        StudentFolder.open(student)
    (student / "judge" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"judge/config\.json is damaged"):
        StudentFolder.open(student)
