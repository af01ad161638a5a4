"""What the doctor says of memory: closed forms for what stays, counted bytes for what a step holds,
and the key to change where it is too much.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, LlamaConfig

from qcrd_ray.doctor import memory, memory_checks
from qcrd_ray.doctor.live_bytes import LiveBytes, step_bytes
from qcrd_ray.doctor.memory import Estimate, generation_estimate, model_bytes, teacher_estimate
from qcrd_ray.doctor.memory_checks import GIB, Process, check_memory, processes, too_small
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import (
    DiscriminatorRecipe,
    Recipe,
    SamplingRecipe,
    ServeTeacher,
    StudentRecipe,
    TrainRecipe,
)

P = 1_000


@pytest.mark.parametrize(
    ("train", "each"),
    [
        ({"zero_stage": 0}, 4 + 8),
        ({"zero_stage": 1}, 4 + 4 + 8),
        ({"zero_stage": 1, "precision": "bf16"}, 2 + 4 + 4 + 8),
        ({"zero_stage": 1, "workers": 4}, 4 + (4 + 8) / 4 + 8),
        ({"zero_stage": 2, "workers": 4, "precision": "bf16"}, 2 + (4 + 4 + 8) / 4 + 8),
        ({"zero_stage": 3, "workers": 4, "precision": "bf16"}, (2 + 4 + 4 + 8) / 4 + 8),
    ],
)
def test_zero_shares_out_what_its_stage_says(train, each):
    """The last 8 of several workers are the buckets, which small models never fill."""
    assert model_bytes(P, TrainRecipe(**train)) == P * each


def test_large_models_send_their_gradients_in_buckets():
    more = model_bytes(10**9, TrainRecipe(workers=2)) - model_bytes(10**9, TrainRecipe(workers=1))
    assert more == 2 * 4 * memory.BUCKET - 10**9 * 12 / 2


def test_adapters_alone_leave_the_weights():
    assert model_bytes(P, TrainRecipe(precision="bf16"), frozen=True) == 2 * P


def test_bytes_are_counted_while_they_live():
    """A closed form: y = w * x keeps x and y; then y's gradient and w's are made."""
    weight = torch.ones(1_000, requires_grad=True)
    with LiveBytes() as counted:
        kept = torch.ones(1_000)
        gone = kept + 1
        assert counted.live == 8_000
        del gone
        assert (counted.live, counted.peak) == (4_000, 8_000)
    module = torch.nn.ParameterList([weight])
    # x, w * x, its sum, the sum's gradient, w's gradient (and no weight)
    assert 8_000 <= step_bytes(module, lambda: (weight * torch.ones(1_000)).sum()) <= 12_016


@pytest.fixture(scope="module")
def config(tiny_student):
    return AutoConfig.from_pretrained(tiny_student)


def estimate(config, judge=None, *, train=None, student=None, discriminator=None, **keys):
    return memory.training_estimate(
        config,
        judge,
        student=StudentRecipe(
            model="m", max_input_tokens=48, max_target_tokens=16, **(student or {})
        ),
        discriminator=DiscriminatorRecipe(max_tokens=64, **(discriminator or {})),
        train=TrainRecipe(batch_size=4, zero_stage=0, **(train or {})),
        sampling=SamplingRecipe(),
        **{"candidates": 6, **keys},
    )


def test_parameters_are_counted_from_the_configuration(tiny_student, config):
    """Without the weights: a student of billions must not be read to be counted."""
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_student)
    assert memory.parameter_count(config) == model.num_parameters()
    assert memory.parameter_count(config, encoder=True) == model.get_encoder().num_parameters()


def test_a_deep_model_is_counted_at_two_depths(config):
    """The whole model's step is what its first two layers say it is."""
    deep = copy.deepcopy(config)
    deep.num_layers = deep.num_decoder_layers = deep.num_hidden_layers = 4
    of_two = estimate(deep).parts["the student's step"]
    student = StudentRecipe(model="m", max_input_tokens=48, max_target_tokens=16)
    whole = memory._student_step(
        deep, student, TrainRecipe(), questions=4, candidates=6, frozen=False
    )
    assert of_two == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_what_a_step_holds_grows_with_its_questions_and_shrinks_with_checkpointing(config, kind):
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=400,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            architectures=["LlamaForCausalLM"],
        )

    def step(**keys):
        return estimate(config, **keys).parts["the student's step"]

    assert step() > 1.8 * step(train={"micro_batch_size": 2}) - step(train={"micro_batch_size": 1})
    assert step(student={"gradient_checkpointing": True}) < step()


def test_the_discriminator_is_told_where_it_is_the_largest(config):
    """Bug guarded: 35 GB of activations on a 24 GB card, found after the teacher was paid."""
    told = estimate(config, config, candidates=0, discriminator={"micro_batch_tokens": 64 * 320})
    assert "the discriminator's step" in told.parts
    assert "discriminator.micro_batch_tokens" in told.change
    less = estimate(config, config, candidates=0, discriminator={"micro_batch_tokens": 64 * 20})
    assert less.total < told.total


def test_generation_takes_weights_a_cache_and_logits(config):
    count = memory.parameter_count(config)
    told = generation_estimate(
        config, batch=10, input_tokens=48, output_tokens=16, change="evaluate.batch_size"
    )
    cache = 2 * config.num_decoder_layers * config.num_heads * config.d_kv * 4
    assert told.total == 4 * count + 10 * 64 * cache + 16 * 10 * config.vocab_size


def test_a_teachers_ranks_share_its_weights_and_cache():
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        architectures=["LlamaForCausalLM"],
    )
    count = memory.parameter_count(config)

    def told(**options):
        engine = {"gpu_memory_utilization": 0.5, **options}
        teacher = ServeTeacher(source="serve", model="m", engine_kwargs=engine)
        return teacher_estimate(config, teacher).total

    cache = 2 * 2 * 2 * 16 * 2  # keys and values, layers, heads, width, bytes
    assert told() == 2 * (2 * count + 512 * cache)
    assert told(tensor_parallel_size=2) == told() / 2
    assert told(max_model_len=64) == 2 * (2 * count + 64 * cache)
    assert told(quantization="awq") == 2 * (count / 2 + 512 * cache)


def test_what_does_not_fit_names_the_card_and_the_key():
    big = Estimate(parts={"weights": 20.0 * GIB}, change="lower evaluate.batch_size")
    process = Process("evaluate.worker", {"GPU": 1.0}, big)
    (told,) = too_small(process, 15.0 * GIB, share=1.0)
    assert "evaluate.worker: 20.00 GiB" in told and told.endswith("lower evaluate.batch_size")
    assert not too_small(process, 24.0 * GIB, share=1.0)
    assert too_small(process, 24.0 * GIB, share=0.5), "two of them on one card"
    assert not too_small(process, None, share=1.0), "nothing is refused on a guess"


def gpu_recipe(model) -> Recipe:
    worker = {"gpus": 1, "resources": {"trainer": 0.001}}
    return Recipe.model_validate(
        {
            "name": "x",
            "run": "runs/x",
            "task": {"kind": "word_problems"},
            "data": {split: {"generate": 3} for split in ("train", "validation", "test")},
            "teacher": {"source": "recording", "path": "gone.jsonl"},
            "student": {"model": str(model), "max_input_tokens": 48, "max_target_tokens": 16},
            "discriminator": {"max_tokens": 64, "micro_batch_tokens": 1_280},
            "train": {"worker": worker, "batch_size": 4},
            "negatives": {"sampler": worker},
            "evaluate": {"worker": worker},
        }
    )


def test_every_process_on_a_gpu_is_asked(tiny_student):
    names = [process.name for process in processes(gpu_recipe(tiny_student))]
    assert names == ["train.worker", "evaluate.worker", "negatives.sampler"]


def test_a_card_that_the_cluster_may_start_is_known_by_its_type(tiny_student, monkeypatch):
    """Groups start at 0 nodes, so there is no card to ask."""
    worker = {"CPU": 8.0, "GPU": 1.0, "trainer": 1.0, "accelerator_type:T4": 1.0}
    monkeypatch.setattr(memory_checks, "live_nodes", list)
    monkeypatch.setattr(memory_checks, "on_nodes", lambda nodes, function: [])
    monkeypatch.setattr(memory_checks.cluster, "startable_workers", lambda: [worker])
    recipe = gpu_recipe(tiny_student)
    assert "train.worker: 0." in check_memory(recipe)
    monkeypatch.setattr(memory, "parameter_count", lambda config, encoder=False: 3 * 10**9)
    with pytest.raises(UserError, match=r"train\.worker: .*15\.0 GiB\): raise train\.workers"):
        check_memory(recipe)


def test_a_model_that_cannot_be_read_is_the_users_to_mend(tmp_path):
    """Bug guarded: a traceback out of `qcrd doctor` where a hub id cannot be reached, or a folder's
    config is damaged.
    """
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot read it"):
        list(processes(gpu_recipe(tmp_path)))
