"""A task of the user's own is imported by Ray's workers too, and a student of it is exported with
its name.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_tiny import tiny_recipe

from qcrd_ray.rationales import generate
from qcrd_ray.runs.folder import RunFolder

pytestmark = pytest.mark.integration


def test_workers_read_completions_by_it(local_ray, tmp_path, monkeypatch):
    """Bug guarded: a module that the driver finds and an actor on the same machine does not."""
    monkeypatch.syspath_prepend(
        Path.cwd()
    )  # what `qcrd` does; Ray's workers have the driver's folder anyhow
    answers = {"1": "yes", "2": "no", "3": "yes"}
    for name, rows in (
        (
            "questions",
            [
                {"id": id, "question": f"Question {id}?", "answer": answer}
                for id, answer in answers.items()
            ],
        ),
        (
            "said",
            [
                {"id": id, "completion": f"We see. So the answer is {answer.title()}."}
                for id, answer in answers.items()
            ]
            * 5,
        ),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tiny_recipe(
        **{
            "run": str(tmp_path / "run"),
            "task": {
                "kind": "tests.support.own_task:YesNo"
            },  # from the current folder, as `qcrd` finds it
            "data": {
                split: {"path": str(tmp_path / "questions.jsonl")}
                for split in ("train", "validation", "test")
            },
            "teacher.path": str(tmp_path / "said.jsonl"),
        }
    )
    folder = RunFolder.open(recipe)
    manifest = generate(recipe, folder)
    assert (
        manifest.outcomes["accepted"] == 3
        and manifest.settings["task"]["kind"] == "tests.support.own_task:YesNo"
    )
    assert manifest.overlap["test"] == {"ids": ["1", "2", "3"], "of": 3}
    rows = folder.read_rationales("train").to_pylist()
    assert {row["question_id"]: row["vote"] for row in rows} == answers
    assert {completion["rationale"] for row in rows for completion in row["completions"]} == {
        "We see."
    }
