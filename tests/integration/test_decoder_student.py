"""A decoder-only student is trained, measured, exported, loaded without us and served by vLLM."""

from __future__ import annotations

import pytest
import torch
from training_tiny import tiny_recipe, write_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from qcrd_ray.evaluation import evaluate
from qcrd_ray.inference import load_engine
from qcrd_ray.models.student_folder import StudentFolder, export_student
from qcrd_ray.training import train
from qcrd_ray.training.metrics import read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.long]  # what it walks is tested in parts too

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"


@pytest.fixture(scope="module")
def student(local_ray, tmp_path_factory):
    """The exported folder of a random Llama that was trained for two rounds, with negatives of its
    own. Several workers, sharded, are in test_learner.
    """
    recipe = tiny_recipe(
        **{
            "student.scratch.kind": "llama",
            "student.max_input_tokens": 128,
            "train.workers": 1,
            "evaluate.baselines": [],
            "evaluate.worker.cpus": 0.5,
        }
    )
    folder = write_run(tmp_path_factory.mktemp("decoder"))
    train(recipe, folder, objective="qcrd")
    rows = read_metrics(folder.training("qcrd"))
    assert rows[-1]["student"]["prediction"] < rows[0]["student"]["prediction"]
    assert [row["negatives"]["snapshot"] for row in rows] == [0, 0] and all(
        row["negatives"]["sampled"] for row in rows
    )
    results = evaluate(recipe, folder)
    assert {(row["name"], row["head"]) for row in results["rows"]} >= {
        ("student", "label"),
        ("student", "rationale"),
        ("student base", "label"),
    }
    return export_student(recipe, folder, results=results)


def test_an_exported_decoder_loads_without_us(student):
    """Its tokenizer's chat template and its generation config say all that is needed; what it
    writes is what was measured.
    """
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(student),
        AutoTokenizer.from_pretrained(student),
    )
    message = [{"role": "user", "content": f"predict: {QUESTION}"}]
    tokens = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        written = model.generate(**tokens)[0, tokens["input_ids"].shape[1] :]
    facts = StudentFolder.open(student).facts
    ((measured,),) = load_engine(student, max_input_tokens=128).generate(
        [f"predict: {QUESTION}"], max_tokens=facts["max_target_tokens"]
    )
    assert tokenizer.decode(written, skip_special_tokens=True).strip() == measured.text
    assert (
        facts["architecture"] == "decoder-only"
        and "AutoModelForCausalLM" in (student / "README.md").read_text()
    )


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_an_exported_decoder_is_served(student, engine):
    """By vLLM, or by transformers where the recipe says so: the same greedy texts as measured."""
    from test_serving import call

    from qcrd_ray import serving
    from qcrd_ray.recipe import ServingRecipe

    url = serving.start(student, ServingRecipe(port=0, max_batch_size=4, engine=engine))
    try:
        status, answer = call(url, {"question": QUESTION, "rationale": True, "quality": True})
    finally:
        serving.stop()
    assert status == 200 and 0.0 <= answer["quality"] <= 1.0
    (label,), _ = load_engine(student, max_input_tokens=128).generate(
        [f"{head}: {QUESTION}" for head in ("predict", "explain")], max_tokens=24
    )
    assert answer["text"] == label.text
