"""A dry run of each of the paper's recipes: a recording asked, the recipe's methods trained for
some steps, measured, exported.
"""

from __future__ import annotations

import json

import pytest
from paper_tiny import PATHS, overrides

from qcrd_ray import doctor, evaluation, pipeline, rationales
from qcrd_ray.models.student_folder import StudentFolder, export_student
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.training.trainer import prepare_job, summarise
from qcrd_ray.training.worker import train_in_process

pytestmark = pytest.mark.integration
IN_EVERY_TEST_RUN = "anli1_t5_small"  # the set whose labels are class names; the others are `long`


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=() if p.stem == IN_EVERY_TEST_RUN else pytest.mark.long)
        for p in PATHS
    ],
)
def test_every_stage_but_serving(path, local_ray, tiny_student, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    recipe = load_recipe(path, overrides(path, tmp_path, tiny_student))
    doctor.preflight(recipe)
    folder = RunFolder.open(recipe)
    asked, tested = rationales.generate_splits(recipe, folder, ["train", "test"])
    assert (asked.rows, tested.rows) == (16, tested.outcomes["accepted"]) and asked.outcomes[
        "accepted"
    ] == 16
    assert asked.roles["negative"] > 0, (
        "without a minority the contrast has nothing of the teacher's"
    )
    for objective in pipeline.objectives(recipe):
        job = prepare_job(recipe, folder, objective)
        job.folder.mkdir(parents=True, exist_ok=True)
        train_in_process(job)
        write_text(job.folder / "result.json", json.dumps(summarise(job)) + "\n")
    results = evaluation.evaluate(recipe, folder)
    names = {row["name"] for row in results["rows"]}
    assert names == {
        "teacher, one sample",
        "teacher, voted",
        "student base",
        "finetune",
        "dss",
        "student",
    }
    voted = next(row for row in results["rows"] if row["name"] == "teacher, voted")
    assert voted["accuracy"] == 1.0, "four of five recorded completions are right"
    assert (
        StudentFolder.open(export_student(recipe, folder, results=results)).discriminator
        is not None
    )
