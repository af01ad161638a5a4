"""Both kinds of students in one process, without Ray: the whole method, gradient checkpointing,
LoRA.
"""

from __future__ import annotations

import sys

import peft_stub
import pytest
import torch
from method_tiny import plain_logits, varied_examples
from safetensors.torch import load_file
from training_tiny import tiny_recipe, write_run
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils import is_peft_available

from qcrd_ray.errors import UserError
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective
from qcrd_ray.models.pretrained import load_model, read_config
from qcrd_ray.recipe import LoraRecipe
from qcrd_ray.training.lora import check_lora
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.student_learner import StudentLearner
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import train_in_process

ROUNDS = {
    "train.rounds": 2,
    "train.round.size": 4,
    "train.workers": 1,
    "train.zero_stage": 0,
    "train.validate.every_rounds": 2,
}


def trained(root, objective: str, **changes) -> list[dict]:
    """The rows of metrics of a training of ``objective``."""
    job = prepare_job(tiny_recipe(**ROUNDS, **changes), write_run(root), objective)
    job.folder.mkdir()
    train_in_process(job)
    return read_metrics(job.folder)


DECODER = {"student.scratch.kind": "llama", "student.max_input_tokens": 128}


@pytest.mark.parametrize("kind", ["tiny_student", "tiny_decoder"])
def test_gradient_checkpointing_is_what_the_recipe_says(kind, request):
    """That it changes nothing that is learnt stands in test_student_step and, under ZeRO, in
    test_learner.
    """
    start, objective = request.getfixturevalue(kind), build_objective(ObjectiveConfig())
    for wanted in (False, True):
        recipe = tiny_recipe(**ROUNDS, **{"student.gradient_checkpointing": wanted})
        process_group = ProcessGroup.single(torch.device("cpu"))
        learner = StudentLearner(
            start,
            recipe.student,
            recipe.train,
            objective=objective,
            tokenizer=AutoTokenizer.from_pretrained(start),
            total_steps=1,
            seed=recipe.seed,
            process_group=process_group,
        )
        assert learner.student.is_gradient_checkpointing == wanted


def test_a_decoder_only_student_learns_from_its_own_negatives(tmp_path):
    """The whole method: its snapshots write negatives, a discriminator on its own layers scores
    them, and it gets better at both heads.
    """
    first, last = trained(tmp_path, "qcrd", **DECODER)
    assert (
        last["student"]["prediction"] < first["student"]["prediction"]
        and last["student"]["positive_nll"] < first["student"]["positive_nll"]
    )
    assert first["negatives"]["sampled"] and last["student"]["negative_from_student"] > 0
    assert {"loss", "auc_teacher"} <= last["discriminator"].keys()
    best = tmp_path / "train" / "qcrd" / "best"
    assert isinstance(load_model(best), LlamaForCausalLM)
    assert 0.0 < Discriminator.load(best / "discriminator").score([(5, 6, 1)])[0] < 1.0


@pytest.fixture(params=["peft", "stub"])
def adapters(request, monkeypatch):
    """The real package where it is installed, and in any case a stand-in that shows what is
    ours.
    """
    if request.param == "peft":
        pytest.importorskip("peft")
    else:
        is_peft_available()  # which remembers: transformers, unlike us, must not meet the stand-in
        for name, module in peft_stub.modules().items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("scratch", [{}, DECODER], ids=["t5", "llama"])
def test_lora_trains_adapters_and_writes_plain_weights(adapters, tmp_path, scratch):
    """A snapshot holds merged weights under the plain model's names: some have moved, and those
    without an adapter have not.
    """
    settings = {
        "student.lora": {"rank": 4, "targets": ["v_proj"] if scratch else ["v"]},
        "discriminator.pretrain_steps": 1,
    }
    rows = trained(tmp_path, "qcrd", **scratch, **settings)
    assert rows[1]["student"]["prediction"] < rows[0]["student"]["prediction"]
    start, best = (
        load_file(tmp_path / "train" / where / "model.safetensors")
        for where in ("start", "qcrd/best")
    )
    assert start.keys() == best.keys()
    moved = {name for name in start if not torch.equal(start[name], best[name])}
    assert moved and all(".v_proj." in name or ".v." in name for name in moved)


@pytest.mark.parametrize("kind", ["tiny_student", "tiny_decoder"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_merged_student_says_what_the_adapted_one_says(
    adapters, kind, checkpointing, request, tmp_path
):
    """After a step on adapters beside every linear layer, with and without gradient checkpointing;
    and before it they change nothing.
    """
    start, objective, process_group = (
        request.getfixturevalue(kind),
        build_objective(ObjectiveConfig()),
        ProcessGroup.single(torch.device("cpu")),
    )
    changes = {
        "student.lora": {"rank": 2},
        "student.gradient_checkpointing": checkpointing,
        "train.batch_size": 8,
    }
    tokenizer = AutoTokenizer.from_pretrained(start)
    recipe = tiny_recipe(**{**ROUNDS, **changes})
    learner = StudentLearner(
        start,
        recipe.student,
        recipe.train,
        objective=objective,
        tokenizer=tokenizer,
        total_steps=4,
        seed=recipe.seed,
        process_group=process_group,
    )
    plain, source, target = load_model(start), (7, 8, 9), (10, 11, 1)
    torch.testing.assert_close(
        plain_logits(learner.student.eval(), source, target), plain_logits(plain, source, target)
    )
    learner.student.train()
    learner.step(0, varied_examples())
    learner.save(tmp_path)
    merged = load_model(tmp_path)
    torch.testing.assert_close(
        plain_logits(merged, source, target),
        plain_logits(learner.student.eval(), source, target),
        atol=1e-5,
        rtol=1e-5,
    )
    assert not torch.allclose(
        plain_logits(merged, source, target), plain_logits(plain, source, target), atol=1e-4
    )


def test_lora_without_peft_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("qcrd_ray.training.lora.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"student\.lora: the package peft is not installed"):
        trained(tmp_path, "qcrd", **{"student.lora": {}})


def test_lora_on_layers_that_are_not_there_is_told(tiny_decoder, monkeypatch):
    monkeypatch.setattr("qcrd_ray.training.lora.find_spec", lambda name: object())
    config = read_config(tiny_decoder)
    check_lora(LoraRecipe(targets=("q_proj", "up_proj")), config)
    with pytest.raises(
        UserError,
        match=(
            r"student\.lora\.targets: query: there is no such linear layer; there are down_proj,"
            r" .*q_proj"
        ),
    ):
        check_lora(LoraRecipe(targets=("q_proj", "query")), config)
    with pytest.raises(UserError, match=r"lm_head: there is no such"):
        check_lora(LoraRecipe(targets=("lm_head",)), config)
