"""The served teacher before it is started: its model's mistakes, and what it will ask of the
cluster.
"""

from __future__ import annotations

import pytest
from fake_hub import fake_hub
from teacher_tiny import write_llama

from qcrd_ray import teacher
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServeTeacher
from qcrd_ray.teacher.model import check_model, uses_chat
from qcrd_ray.teacher.serve import deployment, replica_bundles


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
        env={"VLLM_CPU_KVCACHE_SPACE": "7"},
        engine_kwargs={"seed": 3},
    )
    app = deployment(recipe, seed=1)
    config = app._bound_deployment.init_args[0]
    environment = config["runtime_env"]["env_vars"]
    assert (environment["OMP_NUM_THREADS"], environment["VLLM_CPU_KVCACHE_SPACE"]) == ("4", "7")
    assert config["engine_kwargs"] == {"enforce_eager": True, "seed": 3, "trust_remote_code": False}
