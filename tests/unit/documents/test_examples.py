"""The files in examples/ run, and do what docs/ says of them."""

from __future__ import annotations

import asyncio
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from method_tiny import PAD, tiny_t5, varied_examples

from qcrd_ray.data.records import Outcome, Question, RationaleSet
from qcrd_ray.inference import TransformersEngine, load_engine
from qcrd_ray.inference.heads import answer_questions
from qcrd_ray.method.collation import collate
from qcrd_ray.method.objectives import OBJECTIVES, ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.student import StudentStep
from qcrd_ray.rationales.asking import RationaleGenerator
from qcrd_ray.rationales.requests import REQUEST_SCHEMA
from qcrd_ray.recipe import Recipe, TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher import Teacher

ROOT = Path(__file__).resolve().parents[3]
FORBIDDEN = ("ray", "deepspeed", "vllm", "pydantic")


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch):
    """As `qcrd` has the folder that it is called from."""
    monkeypatch.syspath_prepend(ROOT)


def test_the_minimal_loop_learns_without_ray():
    """It runs in a process of its own, where nobody else has imported Ray."""
    code = (
        "import json, sys\n"
        "sys.path.insert(0, 'examples')\n"
        "import minimal_loop\n"
        "rows = minimal_loop.main(rounds=4)\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        f"print(json.dumps([rows, sorted(loaded & {set(FORBIDDEN)!r})]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    *shown, last = run.stdout.splitlines()
    rows, loaded = json.loads(last)
    assert loaded == []
    assert len(shown) == len(rows) == 4
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[-1]["rationale"] > rows[0]["rationale"]


class TestOwnTask:
    def test_a_recipe_names_it_and_it_reads_answers(self):
        recipe = TaskRecipe(kind="examples.own_task:YesNo", options={"yes": ["true"]})
        task, question = build_task(recipe), Question(id="1", question="Is 4 even?", answer="yes")
        assert isinstance(task, Task)
        assert task.check(question) == ""
        assert "perhaps' is not yes or no" in task.check(
            Question(id="2", question="?", answer="perhaps")
        )
        parsed = task.parse("4 is twice 2. So the answer is True.", question)
        assert (parsed.rationale, parsed.answer) == ("4 is twice 2.", "yes")
        assert task.parse("I cannot say.", question).answer is None


class TestOwnTeacher:
    def ask(self, command: list[str], **generation) -> list[dict]:
        own = importlib.import_module("examples.own_teacher")
        recipe = Recipe.model_validate(
            {
                "name": "t",
                "run": "/nowhere",
                "task": {"kind": "arithmetic"},
                "data": {split: {"path": "x.csv"} for split in ("train", "validation", "test")},
                "teacher": {"source": "recording", "path": "x.jsonl"},
                "student": {"scratch": {}},
                "sampling": {"k": 3},
                "generation": {"backoff_s": 0.001, "attempts": 2, **generation},
            }
        )
        teacher = own.CommandTeacher(command)
        assert isinstance(teacher, Teacher)
        teacher = pickle.loads(pickle.dumps(teacher))  # it travels to the actors that ask
        row = {"id": "h", "question_id": "1", "question": "3 + 5?", "choices": [], "gold": "8"}
        requests = pa.Table.from_pylist([row], schema=REQUEST_SCHEMA)

        async def run() -> list[RationaleSet]:
            return await RationaleGenerator(recipe, teacher)(requests)

        return [each.row() for each in asyncio.run(run())]

    def test_its_samples_are_voted_on(self):
        code = "import sys; assert '3 + 5?' in sys.stdin.read(); print('So the answer is 8.')"
        (row,) = self.ask([sys.executable, "-c", code])
        assert row["outcome"] == Outcome.ACCEPTED, row["reason"]
        assert (row["vote"], len(row["completions"])) == ("8", 3)

    def test_its_failure_is_a_row_and_no_exception(self):
        (row,) = self.ask([sys.executable, "-c", "raise SystemExit(3)"])
        assert (row["outcome"], row["attempts"]) == (Outcome.FAILED, 2)
        assert "ended with 3" in row["reason"]


def test_own_objective_trains_for_two_steps(monkeypatch):
    own = importlib.import_module("examples.own_objective")
    monkeypatch.setitem(OBJECTIVES, "unlikelihood", own.Unlikelihood)
    objective = build_objective(ObjectiveConfig(name="unlikelihood"))
    examples = varied_examples()
    step = StudentStep(tiny_t5(), objective)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-2)
    losses = []
    for _ in range(2):
        output = step(collate(examples, objective, pad=PAD), total_counts(objective, examples))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[1] < losses[0]
    means = objective.metrics(output.sums)
    assert set(means) == {"prediction", "positive_nll", "unlikelihood"}
    assert all(value > 0 for value in means.values())


def test_own_objective_does_not_depend_on_micro_batches():
    own = importlib.import_module("examples.own_objective")
    objective = own.Unlikelihood(ObjectiveConfig(name="unlikelihood"))
    examples = varied_examples()
    counts, step = total_counts(objective, examples), StudentStep(tiny_t5(), objective)
    whole = step(collate(examples, objective, pad=PAD), counts).loss
    parts = [
        step(collate(part, objective, pad=PAD), counts).loss
        for part in (examples[:3], examples[3:])
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_own_engine_writes_the_same_greedy_texts(tiny_student):
    own = importlib.import_module("examples.own_engine")
    engine, ours = own.GenerateEngine(tiny_student), load_engine(tiny_student, device="cpu")
    assert isinstance(ours, TransformersEngine)
    task = build_task(TaskRecipe(kind="arithmetic"))
    questions = [Question(id=str(n), question=f"Tom has {n} apples. How many?") for n in range(3)]
    ask = {"head": "rationale", "max_tokens": 8}
    assert answer_questions(engine, task, questions, **ask) == answer_questions(
        ours, task, questions, **ask
    )
    samples = engine.generate(["explain: x", "explain: y"], n=2, temperature=1.5, max_tokens=4)
    assert [len(each) for each in samples] == [2, 2]
    engine.load_weights(tiny_student)
    assert engine.generate([], max_tokens=4) == []
