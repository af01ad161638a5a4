"""`qcrd run --dry-run`: what a run would do, without Ray, a payment or a file in the run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from qcrd_ray.cli.dry_run import show
from qcrd_ray.errors import UserError
from qcrd_ray.plan.calibration import plan_folder
from qcrd_ray.plan.dry_run import REASONING, DryRun, dry_run
from qcrd_ray.plan.figures import Figures, Stage, Training
from qcrd_ray.recipe import Recipe

FIGURES = Figures(
    stages={"rationales": Stage(start=30.0, unit=0.5), "evaluation": Stage(start=4.0)},
    training={
        "qcrd": Training(
            start=20.0, step=1.0, question=0.0, judge_step=0.0, validated=0.0, round=0.0
        )
    },
    tokens_in=1.0,
    tokens_out=1.0,
    k=1,
    shape={"replicas": 1, "workers": 1, "answering": 1},
)


@pytest.fixture
def tree(tmp_path: Path) -> dict:
    """Four training questions and a row that is none; a key-less endpoint that nobody may ask."""
    rows = [
        {"id": f"q{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)
    ]
    rows.append({"id": "bad", "question": "", "answer": "1"})
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = {"generate": 3, "seed": 1}
    return {
        "name": "x",
        "run": str(tmp_path / "run"),
        "task": {"kind": "word_problems"},
        "data": {
            "train": {"path": str(questions)},
            "validation": other,
            "test": other | {"seed": 2},
        },
        "teacher": {"source": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"},
        "sampling": {"k": 3},
        "student": {"scratch": {}},
        "train": {"rounds": 2, "batch_size": 2},
        "evaluate": {"baselines": ["finetune"]},
    }


def made(tree: dict, **changes) -> DryRun:
    return dry_run(Recipe.model_validate(tree | changes))


def test_it_tells_what_is_asked_and_learnt_and_starts_nothing(tree, tmp_path, capsys):
    """Guards a dry run that pays (port 9 answers nobody), starts Ray or leaves a run folder."""
    dry = made(tree)
    assert not ray.is_initialized()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["questions.jsonl"]
    assert dry.splits["train"] == (4, 1)
    assert {stage.name: stage.work for stage in dry.stages} == {
        "rationales": "4 questions x 3 samples",
        "qcrd": "2 rounds x 2 steps of 2 questions",
        "finetune": "2 rounds x 2 steps of 2 questions",
        "evaluation": "3 questions x 3 models",
        "serving": "one question",
    }
    assert isinstance(dry.first.prompt, list), "this endpoint is asked in a chat"
    assert "What is 0 + 1?" in dry.first.prompt[-1]["content"]
    assert dry.first.inputs["predict: "] == "predict: What is 0 + 1?"
    assert dry.first.targets["predict: "] == "1"
    assert dry.first.targets["explain: "].startswith(REASONING)
    show(dry)
    printed = capsys.readouterr().out
    for words in ("train: 4 questions, 1 rows rejected", "What is 0 + 1?", "no times: `qcrd plan`"):
        assert words in printed


def test_kept_figures_give_times(tree, capsys):
    """Guards an estimate of another size than the run's, and a total without one of its stages."""
    recipe = Recipe.model_validate(tree)
    kept = plan_folder(recipe) / "figures.json"
    kept.parent.mkdir()
    kept.write_text(FIGURES.dump())
    dry = dry_run(recipe)
    seconds = {stage.name: stage.seconds for stage in dry.stages if stage.seconds is not None}
    assert seconds == {"rationales": 30 + 4 * 0.5 * 3, "qcrd": 20 + 4, "evaluation": 4}
    assert dry.whole_seconds == 64
    show(dry)
    assert "all of it: 1:04" in capsys.readouterr().out
    kept.write_text("{}")
    with pytest.raises(UserError, match=r"figures\.json: .* or delete it"):
        dry_run(recipe)


def test_gpus_that_a_stage_holds(tree, tmp_path):
    """Guards `auto`, which asks a cluster: nothing may connect to one."""
    worker = {"gpus": 1}
    dry = made(
        tree,
        teacher={
            "source": "serve",
            "model": "demo",
            "max_replicas": 3,
            "engine_kwargs": {"tensor_parallel_size": 2},
        },
        train=tree["train"] | {"workers": 2, "worker": worker},
        evaluate=tree["evaluate"] | {"workers": 2, "worker": worker},
    )
    assert not ray.is_initialized()
    gpus = {stage.name: stage.gpus for stage in dry.stages}
    assert gpus == {"rationales": 6, "qcrd": 2, "finetune": 2, "evaluation": 2, "serving": 0}


def test_a_mistake_is_told_as_at_the_start_of_a_run(tree):
    with pytest.raises(UserError, match="there is no such file"):
        made(tree, teacher={"source": "recording", "path": "gone.jsonl"})


def test_a_recorded_table_leaves_no_copy_in_the_run_folder(tree, tmp_path):
    """Guards the copy that the teacher itself makes there (teacher/recorded_tables.py)."""
    recorded = tmp_path / "recorded.csv"
    answers = [f"q{i},{i} + 1 = {i + 1}. So the answer is {i + 1}.\n" for i in range(4)]
    recorded.write_text("id,completion\n" + "".join(answers))
    tree["sampling"] = {"k": 1}
    tree["objective"] = {"name": "mi"}
    dry = made(tree, teacher={"source": "recording", "path": str(recorded)})
    assert isinstance(dry.first.prompt, str)
    assert {path.name for path in tmp_path.iterdir()} == {"questions.jsonl", "recorded.csv"}
