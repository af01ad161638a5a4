"""The served teacher before it is started: its model's mistakes, and what it will ask of the
cluster.
"""

from __future__ import annotations

from math import ceil
from types import SimpleNamespace

import pytest
from fake_hub import fake_hub
from ray.serve.autoscaling_policy import _core_replica_queue_length_policy
from teacher_tiny import write_llama

from qcrd_ray import teacher
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import SamplingRecipe, ServeTeacher
from qcrd_ray.teacher import serve
from qcrd_ray.teacher.model import check_model, uses_chat
from qcrd_ray.teacher.serve import ServedTeacher, accelerator_of, deployment, replica_bundles


@pytest.fixture(autouse=True)
def checked_anew():
    check_model.cache_clear()


def served(model="m", **fields) -> ServeTeacher:
    return ServeTeacher(source="serve", model=str(model), **fields)


def test_a_whole_model_is_taken_in_plain_text(tmp_path):
    assert teacher.check(served(write_llama(tmp_path))).endswith("asked in plain text")


def test_a_chat_template_is_used_where_there_is_one(tmp_path):
    model = write_llama(
        tmp_path, chat_template="{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    assert uses_chat(served(model))
    assert uses_chat(served(model, chat="always"))
    assert not uses_chat(served(model, chat="never"))


def test_always_chat_without_a_template_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.chat: always.*no chat template"):
        uses_chat(served(write_llama(tmp_path), chat="always"))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.model: there is no folder .*nowhere"):
        teacher.check(served(tmp_path / "nowhere"))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.model: no model can be read"):
        teacher.check(served(tmp_path))


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    """vLLM would say so after a minute, in a replica's log."""
    model = write_llama(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=r"teacher\.model: no tokenizer can be read"):
        teacher.check(served(model))


def test_another_models_tokenizer_is_refused(tmp_path):
    """Its larger ids would be looked up outside the embedding."""
    model = write_llama(tmp_path / "one")
    other = write_llama(tmp_path / "other", words=500)
    for file in other.glob("tokenizer*"):
        (model / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"has 500 tokens and the model 100 embeddings"):
        teacher.check(served(model))


def test_a_cached_hub_model_is_found_offline(tmp_path, monkeypatch):
    """Bug guarded: the teacher's model was sought on the hub although the cache held it."""
    hub = fake_hub(write_llama(tmp_path / "model"), tmp_path, monkeypatch)
    assert not uses_chat(served("x/y"))
    assert hub.asked == ["AutoConfig", "AutoTokenizer"]
    check_model.cache_clear()
    hub.reachable = False
    assert not uses_chat(served("x/y"))
    assert hub.asked == ["AutoConfig", "AutoTokenizer"], "what is in the cache is not asked for"


def test_a_hub_out_of_reach_is_named(tmp_path, monkeypatch):
    hub = fake_hub(write_llama(tmp_path / "model"), tmp_path, monkeypatch)
    hub.reachable = False
    with pytest.raises(UserError, match=r"teacher\.model: no model can be read from x/y: .*reach"):
        uses_chat(served("x/y"))


def test_an_encoder_decoder_is_refused(tiny_student):
    with pytest.raises(UserError, match=r"encoder-decoder.*decoder-only"):
        teacher.check(served(tiny_student))


@pytest.mark.parametrize(
    ("fields", "bundles"),
    [
        ({"accelerator": "cpu"}, [{"CPU": 1.0}]),
        (
            {"accelerator": "cpu", "replica": {"cpus": 4, "resources": {"fast": 1}}},
            [{"CPU": 4.0, "fast": 1.0}],
        ),
        ({"accelerator": "gpu"}, [{"GPU": 1.0, "CPU": 1.0}]),
        (
            {"accelerator": "gpu", "engine_kwargs": {"tensor_parallel_size": 2}},
            [{"GPU": 1.0, "CPU": 1.0}, {"GPU": 1.0}],
        ),
        (
            {
                "accelerator": "gpu",
                "engine_kwargs": {"tensor_parallel_size": 2},
                "replica": {"resources": {"teacher": 1}},
            },
            [
                {"GPU": 1.0, "CPU": 1.0, "teacher": 1.0},
                {"GPU": 1.0, "teacher": 0.001},
            ],  # no second device in another group of nodes
        ),
        ({"accelerator": "A100"}, [{"GPU": 1.0, "accelerator_type:A100": 0.001, "CPU": 1.0}]),
    ],
)
def test_a_replica_asks_for(fields, bundles):
    assert replica_bundles(served(**fields)) == bundles
    assert teacher.bundles(served(min_replicas=0, max_replicas=8, **fields)) == bundles
    assert teacher.bundles(served(min_replicas=2, max_replicas=8, **fields)) == bundles * 2


def test_a_cpu_engine_gets_its_environment_and_the_recipe_has_the_last_word(tmp_path):
    model = write_llama(tmp_path)
    recipe = served(
        model,
        accelerator="cpu",
        replica={"cpus": 4},
        env={"VLLM_CPU_OMP_THREADS_BIND": "0-1"},
        engine_kwargs={"seed": 3, "kv_cache_memory_bytes": 7},
    )
    app = deployment(recipe, seed=1, requests_in_flight=64)
    config = app._bound_deployment.init_args[0]
    environment = config["runtime_env"]["env_vars"]
    assert environment["OMP_NUM_THREADS"] == "4"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"
    assert config["engine_kwargs"] == {
        "enforce_eager": True,
        "kv_cache_memory_bytes": 7,
        "performance_mode": "throughput",
        "seed": 3,
        "trust_remote_code": False,
    }


@pytest.mark.parametrize("eager", [True, False])
def test_nothing_is_compiled_for_an_eager_engine_on_cpus(tmp_path, eager):
    """Bug guarded: the first request waited three seconds for a compiled sampler."""
    model = write_llama(tmp_path)
    recipe = served(model, accelerator="cpu", engine_kwargs={"enforce_eager": eager})
    assert ("TORCH_COMPILE_DISABLE" in environment_of(recipe)) == eager


def environment_of(recipe):
    app = deployment(recipe, seed=1, requests_in_flight=64)
    return app._bound_deployment.init_args[0]["runtime_env"]["env_vars"]


def test_a_gpu_engine_compiles_no_sampler_unless_the_recipe_says_so(tmp_path):
    """Bug guarded: vLLM chose FlashInfer's sampler, which wants nvcc when it first runs."""
    model = write_llama(tmp_path)
    assert environment_of(served(model, accelerator="gpu"))["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    env = {"VLLM_USE_FLASHINFER_SAMPLER": "1"}
    chosen = environment_of(served(model, accelerator="gpu", env=env))
    assert chosen["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in environment_of(served(model, accelerator="cpu"))


@pytest.mark.parametrize(
    ("in_flight", "replicas", "at_once", "target"),
    [
        (256, 4, 128, 64.0),  # the cluster recipe: 96 would stop at ceil(256 / 96) = 3
        (1_000, 4, 128, 96.0),  # enough for all: room is left in each replica's queue
        (2, 4, 128, 1.0),
        (256, 1, 128, 96.0),
    ],
)
def test_all_replicas_are_reached_when_all_requests_are_in_flight(
    tmp_path, in_flight, replicas, at_once, target
):
    """Bug guarded: `max_replicas: 4` never came to more than three.

    Serve's own policy is asked.
    """
    recipe = served(
        write_llama(tmp_path),
        accelerator="gpu",
        max_replicas=replicas,
        max_ongoing_requests=at_once,
    )
    app = deployment(recipe, seed=1, requests_in_flight=in_flight)
    config = app._bound_deployment._deployment_config.autoscaling_config
    assert config.get_target_ongoing_requests() == target
    wanted, _ = _core_replica_queue_length_policy(
        SimpleNamespace(current_num_replicas=1, config=config, total_num_requests=in_flight)
    )
    assert min(ceil(wanted), replicas) == min(replicas, in_flight)


@pytest.mark.parametrize(("gpus", "kind"), [(True, "gpu"), (False, "cpu")])
def test_auto_is_what_the_cluster_can_have(monkeypatch, gpus, kind):
    """Bug guarded: on a cluster whose groups start at 0 nodes, `auto` ran a model of 7 billion
    weights on CPUs.
    """
    monkeypatch.setattr(serve, "may_have", lambda name: gpus)
    assert accelerator_of(served(accelerator="auto")) == kind


def test_auto_is_refused_where_nobody_can_tell(monkeypatch):
    monkeypatch.setattr(serve, "may_have", lambda name: None)
    with pytest.raises(UserError, match=r"teacher\.accelerator: auto cannot tell"):
        accelerator_of(served(accelerator="auto"))
    assert accelerator_of(served(accelerator="A100")) == "gpu"


@pytest.mark.parametrize("kind", ["CompletionRequest", "ChatCompletionRequest"])
def test_the_models_generation_config_changes_no_sample(kind):
    """Bug guarded: vLLM took top_k and repetition_penalty from the model's
    `generation_config.json`, and neither the recipe nor the row's id knew of it.

    vLLM's own requests are asked what they would be sampled with, beside a model that has a value
    of its own for everything that `ModelConfig.get_diff_sampling_param` reads.
    """
    models = pytest.importorskip("ray.serve.llm.openai_api_models")
    own = {
        "temperature": 0.1,
        "top_p": 0.2,
        "top_k": 1,
        "min_p": 0.9,
        "repetition_penalty": 2.0,
        "max_tokens": 3,
    }
    text = {"prompt": "1"} if kind == "CompletionRequest" else {"messages": []}
    changed = SamplingRecipe(top_p=0.9, top_k=20, min_p=0.1, repetition_penalty=1.1)
    for asked in (SamplingRecipe(), changed):
        sent = ServedTeacher(
            served(),
            asked,
            seed=0,
            application="a",
            requests_in_flight=1,
            schedule_timeout_s=1.0,
        )._sampling
        request = getattr(models, kind)(model="m", **text, **sent)
        sampled = request.to_sampling_params(asked.max_tokens, own)
        assert {name: getattr(sampled, name) for name in own} == asked.model_dump(include=set(own))
