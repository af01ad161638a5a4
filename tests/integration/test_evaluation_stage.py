"""Evaluation on a real Ray: one pool for all models, and nothing computed twice."""

from __future__ import annotations

import json

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Outcome, RationaleSet
from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.evaluation import evaluate
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.heads import answer_questions
from qcrd_ray.inference.pool import run_pool, split_jobs
from qcrd_ray.recipe import EvaluateRecipe, RayRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.splits import store_split

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(make_run):
    """A run with 12 training questions, of which the teacher got 9 right by the first sample and 10
    by the vote.
    """
    recipe, folder = make_run()
    rows = []
    for number, question in enumerate(pq.read_table(folder.questions("train")).to_pylist()):
        gold = question["answer"]
        first, vote = ("wrong" if number < 3 else gold), ("wrong" if number < 2 else gold)
        rows.append(
            RationaleSet(
                id=f"h{number}",
                question_id=question["id"],
                question=question["question"],
                gold=gold,
                completions=(Completion(text="t", answer=first),),
                outcome=Outcome.ACCEPTED,
                vote=vote,
            ).row()
        )
    (folder.rationales("train") / "rows").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA),
        folder.rationales("train") / "rows" / "0.parquet",
    )
    return recipe, folder


@pytest.fixture(scope="module")
def results(local_ray, run):
    recipe, folder = run
    seen = []
    results = evaluate(recipe, folder, report=lambda *step: seen.append(step))
    assert seen[0][:2] == (0, 80) and seen[-1][:2] == (
        80,
        80,
    ), "10 + 6 questions by five heads, and a progress line that ends at its end"
    return results


def test_every_row_of_the_table_is_there(results, run):
    _, folder = run
    heads = [
        ("student base", "label"),
        ("student base", "rationale"),
        ("finetune", "label"),
        ("student", "label"),
        ("student", "rationale"),
    ]
    rows = {(row["name"], row["head"], row["split"]): row for row in results["rows"]}
    for name, head in heads:
        assert rows.pop((name, head, "test"))["total"] == 10
        assert rows.pop((name, head, "held_out"))["total"] == 6
    assert rows.pop(("teacher, one sample", "one sample", "train"))["correct"] == 9
    assert rows.pop(("teacher, voted", "vote", "train"))["correct"] == 10
    assert not rows
    assert json.loads((folder.evaluation / "results.json").read_text()) == results
    assert "training questions" in results["notes"][0]


def test_predictions_are_each_models_own(results, run):
    """The weights are swapped in one process: a swap that failed would measure one model under
    another's name.
    """
    _, folder = run
    table = pq.read_table(folder.evaluation / "predictions.parquet")
    assert table.schema.equals(PREDICTION_SCHEMA)
    rows = table.to_pylist()
    texts = {
        question["id"]: question["question"]
        for question in pq.read_table(folder.questions("test")).to_pylist()
    }
    models = {
        "student base": folder.root / "train" / "start",
        "finetune": folder.training("finetune") / "best",
    }
    models["student"] = folder.training("qcrd") / "best"
    for name, model in models.items():
        engine = load_engine(model, max_input_tokens=64)
        for row in rows:
            if row["name"] == name and row["split"] == "test":
                prefix = {"label": "predict: ", "rationale": "explain: "}[row["head"]]
                (expected,) = engine.generate([prefix + texts[row["question_id"]]], max_tokens=12)[
                    0
                ]
                assert (row["text"], row["finish_reason"], row["tokens"]) == (
                    expected.text,
                    expected.finish_reason,
                    expected.tokens,
                )
                assert row["right"] == (row["answer"] == row["gold"])


def test_a_second_call_asks_only_for_what_has_changed(results, run):
    recipe, folder = run
    seen = []
    assert evaluate(recipe, folder, report=lambda *step: seen.append(step)) == results
    assert seen == [(0, 0, "nothing has changed")]
    weights = folder.training("finetune") / "best" / "model.safetensors"
    save_file(
        {name: tensor + torch.randn_like(tensor) for name, tensor in load_file(weights).items()},
        weights,
        {"format": "pt"},
    )
    evaluate(
        recipe.model_copy(update={"evaluate": EvaluateRecipe(workers=2, batch_size=3)}),
        folder,
        report=lambda *step: seen.append(step),
    )
    assert seen[-1] == (16, 16, "finetune, label")
    assert len(list((folder.evaluation / "parts").iterdir())) == 10, (
        "predictions of weights that are gone must go too"
    )


def test_a_dead_actor_is_replaced(local_ray, make_run):
    """Its questions must neither be lost nor counted twice, and the new actor must hold the right
    weights.
    """
    recipe, folder = make_run()
    questions, _ = store_split(recipe, folder, "test")
    work = split_jobs(0, folder.training("qcrd") / "best", "label", questions, size=2)
    answers, killed = {}, []
    for done in run_pool(recipe, work):
        answers |= {
            question.id: answer
            for question, answer in zip(done.job.questions, done.answers, strict=True)
        }
        if not killed:
            (actor,) = [
                each
                for each in psutil.Process().children(recursive=True)
                if "".join(each.cmdline()).startswith("ray::Answerer")
            ]
            actor.kill()
            actor.wait(10)
            killed.append(actor.pid)
    engine, task = (
        load_engine(folder.training("qcrd") / "best", max_input_tokens=64),
        build_task(recipe.task),
    )
    assert answers == dict(
        zip(
            [q.id for q in questions],
            answer_questions(engine, task, questions, head="label", max_tokens=12),
            strict=True,
        )
    )


def test_what_can_never_be_scheduled_is_named(local_ray, make_run):
    recipe, folder = make_run()
    greedy = recipe.model_copy(
        update={
            "evaluate": EvaluateRecipe(worker={"cpus": 99}),
            "ray": RayRecipe(schedule_timeout_s=5),
        }
    )
    with pytest.raises(MissingResource, match="99 CPU"):
        evaluate(greedy, folder)


def test_an_unfinished_training_is_not_measured(make_run):
    """Its best checkpoint so far is there, and is not what the recipe asked for."""
    recipe, folder = make_run()
    (folder.training("qcrd") / "result.json").unlink()
    with pytest.raises(UserError, match="no finished training"):
        evaluate(recipe, folder)
