"""What is said of a teacher that gave nothing: advice that its kind can follow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from qcrd_ray.data.records import Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.store import ShardCounts
from qcrd_ray.rationales.verdict import check_usable
from qcrd_ray.recipe import Recipe

RECORDING = {"source": "recording", "path": "t.jsonl"}
SERVED = {"source": "serve", "model": "demo"}


def told(teacher, outcome) -> str:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "run": "runs/x",
            "task": {"kind": "arithmetic"},
            "data": {split: {"path": "q.jsonl"} for split in ("train", "validation", "test")},
            "teacher": teacher,
            "student": {"scratch": {}},
        }
    )
    row = {"question_id": "q1", "outcome": outcome, "reason": "why", "completions": []}
    outcomes = {each.value: 3 * (each == outcome) for each in Outcome}
    manifest = SimpleNamespace(split="train", outcomes=outcomes)
    with pytest.raises(UserError) as error:
        check_usable(recipe, ShardCounts(requests=3, example=row), manifest)
    return str(error.value)


@pytest.mark.parametrize("outcome", [Outcome.UNPARSED, Outcome.FAILED])
def test_a_recording_is_not_told_what_a_model_could_be_told(outcome):
    """Bug guarded: it was told to change its instruction, and to give it more tokens."""
    advice = told(RECORDING, outcome)
    for word in ("task.instruction", "sampling.max_tokens", "failed rows are asked again"):
        assert word not in advice
    assert ("qcrd parse" if outcome == Outcome.UNPARSED else "sampling.k = 5") in advice


def test_a_model_is():
    assert "task.instruction" in told(SERVED, Outcome.UNPARSED)
    assert "teacher.* section" in told(SERVED, Outcome.FAILED)
