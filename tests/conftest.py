"""Fixtures that several test folders share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep converted models in a folder of the tests, also in the Ray workers that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QCRD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory) -> Path:
    """The folder of a random T5 of 30 thousand weights, which writes any text and no sense.

    Its tokenizer is trained on word problems.
    """
    from qcrd_ray.recipe import ScratchRecipe, StudentRecipe
    from qcrd_ray.tasks.word_problems import generate
    from qcrd_ray.training.start_models import write_start

    folder = tmp_path_factory.mktemp("tiny") / "student"
    recipe = StudentRecipe(
        scratch=ScratchRecipe(d_model=32, d_ff=64, layers=1, heads=2, vocabulary=400)
    )
    write_start(
        recipe, folder, texts=[question.question for question in generate(50, seed=0)], seed=0
    )
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory) -> Path:
    """The same as a decoder-only student: a random Llama."""
    from qcrd_ray.recipe import ScratchRecipe, StudentRecipe
    from qcrd_ray.tasks.word_problems import generate
    from qcrd_ray.training.start_models import write_start

    folder = tmp_path_factory.mktemp("tiny") / "decoder"
    scratch = ScratchRecipe(kind="llama", d_model=32, d_ff=64, layers=1, heads=2, vocabulary=400)
    recipe = StudentRecipe(scratch=scratch, max_input_tokens=384, max_target_tokens=128)
    write_start(
        recipe, folder, texts=[question.question for question in generate(50, seed=0)], seed=0
    )
    return folder


@pytest.fixture(scope="session")
def make_run(tiny_student, tmp_path_factory):
    """A function that makes a run folder as training leaves it: (recipe, folder).

    Its models are random ones like the one in ``student``.
    """
    return lambda student=tiny_student: _make_run(student, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def exported_student(make_run) -> Path:
    """A student folder with a discriminator, as a finished run exports it."""
    return _export(*make_run())


@pytest.fixture(scope="session")
def exported_decoder(make_run, tiny_decoder) -> Path:
    """The same of a decoder-only student."""
    return _export(*make_run(tiny_decoder))


def _export(recipe, folder) -> Path:
    from qcrd_ray.models.student_folder import export_student

    row = {"name": "student", "head": "label", "split": "test"}
    row |= {"correct": 1, "total": 2, "unanswered": 0}
    return export_student(
        recipe,
        folder,
        results={"rows": [{**row, "accuracy": 0.5, "low": 0.1, "high": 0.9}], "notes": []},
    )


def _make_run(student: Path, root: Path):
    import json
    import shutil

    import torch
    from transformers import AutoTokenizer

    from qcrd_ray.method.discriminator import Discriminator
    from qcrd_ray.models.pretrained import load_model
    from qcrd_ray.recipe import Recipe
    from qcrd_ray.runs.folder import RunFolder
    from qcrd_ray.tasks.splits import store_split

    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "run": str(root),
            "task": {"kind": "word_problems"},
            "data": {
                "train": {"generate": 12, "seed": 1},
                "validation": {"generate": 4, "seed": 2},
                "test": {"generate": 10, "seed": 3},
                "held_out": {"generate": 6, "seed": 4, "kind": "held_out"},
            },
            "teacher": {"source": "recording", "path": "/private/teacher.jsonl"},
            "student": {"scratch": {}, "max_input_tokens": 64, "max_target_tokens": 12},
            "evaluate": {"batch_size": 4},
            "ray": {"address": "local"},
        }
    )
    folder = RunFolder(root)
    store_split(recipe, folder, "train")
    shutil.copytree(student, root / "train" / "start")
    for number, objective in enumerate(("finetune", "qcrd")):
        torch.manual_seed(number)
        model = load_model(student)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.3)
        best = folder.training(objective) / "best"
        model.save_pretrained(best)
        AutoTokenizer.from_pretrained(student).save_pretrained(best)
        (folder.training(objective) / "result.json").write_text(
            json.dumps({"best_round": 1, "rounds": 2, "chosen_by": "mean"})
        )
    judge = folder.training("qcrd") / "best" / "discriminator"
    Discriminator.from_pretrained(student, hidden=8).save(judge, max_tokens=64)
    AutoTokenizer.from_pretrained(student).save_pretrained(judge)
    return recipe, folder
