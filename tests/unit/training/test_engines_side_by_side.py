"""The student's and the discriminator's engine in one process, in every ZeRO stage and precision.

On one worker, with DeepSpeed's own engines; tests/gpu does the same on NCCL.
"""

from __future__ import annotations

import pytest
import torch
from gpu_engines import PRECISIONS, STAGES, train_both
from test_discriminator_learning import TASK, question
from training_tiny import tiny_recipe

from qcrd_ray.method.prefix import EncodedInputs
from qcrd_ray.training.engines import compile_layers, student_config
from qcrd_ray.training.process_group import ProcessGroup, use_tf32


def recipe(stage: int, precision: str):
    return tiny_recipe(
        **{
            "train.workers": 1,
            "train.batch_size": 4,
            "train.micro_batch_size": 2,
            "train.zero_stage": stage,
            "train.precision": precision,
            "discriminator.precision": precision,
            "discriminator.batch_size": 2,
            "discriminator.micro_batch_tokens": 1,  # a micro-batch a question
        }
    )


def run(stage: int, precision: str, tiny_student, process_group):
    questions = [question("7"), question("12")]
    settings = recipe(stage, precision)
    return train_both(settings, tiny_student, process_group, questions=questions, task=TASK)


@pytest.fixture(scope="module")
def alone(tiny_student):
    """What plain torch learns in float32."""
    return run(0, "fp32", tiny_student, ProcessGroup.single(torch.device("cpu")))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_stage_and_precision_learns_the_same(
    process_group, tiny_student, alone, stage, precision
):
    """Bug guarded: bf16 without shards is refused with float32 sums, and accumulates in bf16
    without them; a step of D that ends with its first micro-batch.
    """
    losses, d_loss = run(stage, precision, tiny_student, process_group)
    tolerance = 1e-4 if precision == "fp32" else 0.02
    assert losses == pytest.approx(alone[0], rel=tolerance, abs=tolerance)
    assert d_loss == pytest.approx(alone[1], abs=tolerance)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("start", ["tiny_student", "tiny_decoder"])
def test_zero_3_gathers_a_head_that_makes_losses_by_chunks(
    process_group, request, monkeypatch, start
):
    """Its weights are there in the forward pass, and when the logits are made again in the backward
    pass. DeepSpeed never shares out parameters as small as these, unless it is told to.
    """
    folder = request.getfixturevalue(start)
    losses, _ = run(0, "fp32", folder, ProcessGroup.single(torch.device("cpu")))
    monkeypatch.setitem(EncodedInputs.losses.__kwdefaults__, "chunk", 400 * 3)

    def shared_out(train):
        config = student_config(train)
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return config

    monkeypatch.setattr("qcrd_ray.training.student_learner.student_config", shared_out)
    sharded, _ = run(3, "fp32", folder, process_group)
    assert sharded == pytest.approx(losses, abs=1e-4)


def test_one_process_trains_in_bf16_with_float32_weights(tiny_student, alone):
    """Bug guarded: autocast's cache hands the pass with gradient weights that were cast without."""
    single = ProcessGroup.single(torch.device("cpu"))
    losses, d_loss = run(0, "bf16", tiny_student, single)
    assert losses == pytest.approx(alone[0], rel=0.02) and losses != alone[0]
    assert d_loss == pytest.approx(alone[1], abs=0.02)


def test_layers_are_compiled_and_compute_the_same(tiny_student):
    """By a backend that compiles nothing, which needs no compiler of C++."""
    from qcrd_ray.method.student import load_student

    student = load_student(tiny_student, dropout=0.0)
    inputs = {"input_ids": torch.tensor([[5, 6, 1]]), "labels": torch.tensor([[7, 1]])}
    before = student(**inputs).logits
    compile_layers(student, backend="eager")
    compiled = [layer for layer in student.modules() if layer._compiled_call_impl is not None]
    assert {type(layer).__name__ for layer in compiled} == {"T5Block"} and len(compiled) == 2
    torch.testing.assert_close(student(**inputs).logits, before)


def test_tf32_is_a_setting_of_gpus_alone():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        use_tf32(True)
        assert (
            matmul.fp32_precision == "tf32"
            and torch.backends.mkldnn.matmul.fp32_precision != "tf32"
        )
        use_tf32(False)
        assert matmul.fp32_precision == "ieee"
    finally:
        matmul.fp32_precision = before
