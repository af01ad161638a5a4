"""The served teacher as it is: real Ray Serve, real vLLM on the CPU, a random Llama. One start for
all tests; each start is a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray
from teacher_tiny import write_llama

from qcrd_ray.errors import UserError
from qcrd_ray.rationales import generate
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks import build_task, word_problems
from qcrd_ray.teacher import TeacherRequest, build_teacher

pytestmark = pytest.mark.integration

K = 5


def make_recipe(model: Path, root: Path, *, questions: int, long: bool = False) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "served",
            "run": str(root),
            "task": {"kind": "word_problems"} | ({"instruction": "word " * 300} if long else {}),
            "data": {
                "train": {"generate": questions, "seed": 1},
                "validation": {"generate": 5},
                "test": {"generate": 5, "seed": 2},
            },
            "teacher": {
                "source": "serve",
                "model": str(model),
                "engine_kwargs": {"max_model_len": 256},
            },
            "sampling": {"k": K, "max_tokens": 24, "temperature": 1.0},
            "vote": {"truncated": "vote"},
            "generation": {
                "rows_per_block": 16,
                "requests_in_flight": 16,
                "questions_per_request": 2,
            },
            "student": {"scratch": {}},
            "ray": {"address": "local"},
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Its own sampling settings would make all samples of a question equal."""
    folder = write_llama(tmp_path_factory.mktemp("teacher"))
    own = {"do_sample": True, "top_k": 1, "repetition_penalty": 2.0, "eos_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(own))
    return folder


@pytest.fixture(scope="module")
def teacher(local_ray, model, tmp_path_factory):
    """A started teacher, which is stopped at the end -- and must then have given back all that it
    took.
    """
    free = ray.available_resources()["CPU"]
    teacher = build_teacher(make_recipe(model, tmp_path_factory.mktemp("run"), questions=1))
    teacher.check([])
    teacher.start()
    teacher.start()  # does nothing
    yield teacher
    teacher.stop()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != free and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == free
    assert not engines()


def engines() -> list[psutil.Process]:
    """vLLM's engine processes under this test."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "EngineCore" in " ".join(_command(process))
    ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_k_samples_of_each_question_come_back(teacher, model, tmp_path):
    """The stock Ray Data processor keeps one sample of n; here all K must be there, with their
    tokens, and the rows must add up.

    Bug guarded: what the recipe does not say was filled in from the model's
    `generation_config.json`, here top_k = 1.
    """
    recipe = make_recipe(model, tmp_path / "run", questions=40)
    manifest = generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    assert manifest.rows == sum(manifest.outcomes.values()) == 40
    assert manifest.outcomes["failed"] == manifest.outcomes["rejected_input"] == 0
    assert manifest.completions == 40 * K
    rows = RunFolder(tmp_path / "run").read_rationales("train").to_pylist()
    assert all(
        len({completion["text"] for completion in row["completions"]}) > 1 for row in rows
    )  # samples, not copies
    assert all(0 < completion["tokens"] <= 24 for row in rows for completion in row["completions"])
    call = manifest.calls[-1]
    assert call["tokens_out"] == manifest.tokens > 0
    assert call["tokens_in"] > 40 * 10


def test_a_further_wave_is_answered(teacher, model, tmp_path):
    """Bug guarded: it had a seed of its own, and vLLM's worker for CPUs died of that as soon as it
    read a prompt in parts ("CPU Generator does not use offset").
    """
    task = build_task(make_recipe(model, tmp_path, questions=1).task)
    asks = [
        TeacherRequest(question, teacher.prompt(task, question), samples=2, first=3)
        for question in word_problems.generate(48, seed=1)
    ]

    async def ask_all():
        return await asyncio.gather(*(teacher.complete([each]) for each in asks))

    answers = asyncio.run(ask_all())
    assert [len(answer.completions) for (answer,) in answers] == [2] * 48


def test_a_prompt_that_the_model_cannot_take_is_rejected_and_not_retried(teacher, model, tmp_path):
    recipe = make_recipe(model, tmp_path / "run", questions=4, long=True)
    with pytest.raises(UserError, match=r"4 rejected_input(?s:.*)256"):
        generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    rows = RunFolder(tmp_path / "run").read_rationales("train").to_pylist()
    assert {(row["outcome"], row["attempts"]) for row in rows} == {("rejected_input", 1)}


def test_a_dead_engine_is_replaced_and_every_row_is_answered(teacher, model, tmp_path):
    """SIGKILL of vLLM's engine inside a living replica, which would else answer with errors for
    ever (ray#59522).
    """
    recipe = make_recipe(model, tmp_path / "run", questions=300)
    folder = RunFolder(tmp_path / "run")
    (engine,) = engines()
    killed = threading.Event()

    def kill_after_the_first_rows() -> None:
        rows = folder.rationales("train") / "rows"
        while not any(journal.stat().st_size for journal in rows.glob("*/*.jsonl")):
            time.sleep(0.02)
        os.kill(engine.pid, signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill_after_the_first_rows, daemon=True).start()
    manifest = generate(recipe, folder, teacher=teacher)
    assert killed.is_set() and not engine.is_running()
    assert manifest.rows == sum(manifest.outcomes.values()) == 300
    assert manifest.outcomes["failed"] == 0
    assert manifest.calls[-1]["retries"] > 0
