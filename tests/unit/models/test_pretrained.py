"""A student that cannot be trained or served is refused before anything starts, with what to do."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from fake_hub import fake_hub
from transformers import AutoTokenizer, BertConfig, LlamaForCausalLM

from qcrd_ray.errors import UserError
from qcrd_ray.models.names import resolve
from qcrd_ray.models.pretrained import check_student, load_student


@pytest.fixture
def folder(tiny_student, tmp_path):
    return shutil.copytree(tiny_student, tmp_path / "model")


def test_a_good_folder_loads(folder):
    model, tokenizer = load_student(folder)
    assert not model.training
    assert len(tokenizer) <= model.config.vocab_size


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/mine", "~/mine", "a/b/c", ""])
def test_a_path_that_is_not_there(name):
    """A mistyped path must not be looked up on the hub."""
    with pytest.raises(UserError, match="no such folder"):
        resolve(name)


def test_hub_ids_and_folders_are_told_apart(folder):
    assert resolve("google/flan-t5-small") == "google/flan-t5-small"
    assert resolve(folder) == str(folder)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        check_student(tmp_path)


def test_a_folder_without_a_tokenizer(folder):
    """transformers makes up an empty T5 tokenizer here and says nothing."""
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        check_student(folder)


@pytest.fixture
def hub(tiny_student, tmp_path, monkeypatch):
    return fake_hub(tiny_student, tmp_path, monkeypatch)


def test_the_hub_is_asked_for_the_tokenizer_of_a_config_that_is_cached(hub, tiny_student):
    """Bug guarded: config.json was fetched first, and of it alone transformers made up a T5
    tokenizer without a word in it.
    """
    _, tokenizer = check_student("x/y")
    assert hub.asked == ["AutoConfig", "AutoTokenizer"]
    assert tokenizer("3 plums").input_ids == check_student(tiny_student)[1]("3 plums").input_ids
    check_student("x/y")
    assert len(hub.asked) == 2, "what is in the cache is not asked for"


def test_a_model_of_the_hub_without_a_tokenizer(hub):
    for file in hub.files.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match="hub id x/y has no tokenizer"):
        check_student("x/y")


def test_a_tokenizer_larger_than_the_embeddings(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"extra{i}" for i in range(500)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="do not belong together"):
        check_student(folder)


def test_a_tokenizer_with_another_end(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 7}))
    with pytest.raises(UserError, match="config says 7"):
        check_student(folder)


def test_a_tokenizer_that_does_not_end_its_texts(folder):
    """Such a student is trained on targets without an end and never stops."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    with pytest.raises(UserError, match="does not close a text"):
        check_student(folder)


def test_a_decoder_only_student_loads_and_its_tokenizer_need_not_end_texts(tiny_decoder):
    model, tokenizer = load_student(tiny_decoder)
    assert isinstance(model, LlamaForCausalLM)
    assert tokenizer("a").input_ids[-1] != tokenizer.eos_token_id


def test_what_writes_no_text_is_refused(tmp_path):
    """A BERT has a causal form in transformers, which would train on without ever being of use."""
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path)
    with pytest.raises(
        UserError,
        match=r"bert \(BertForMaskedLM\) is neither an encoder-decoder nor a causal language model",
    ):
        check_student(tmp_path)


def test_layers_without_keys_and_values_are_refused(tmp_path):
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "layer_types": ["full_attention", "linear_attention"],
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"its layers \(linear_attention\) keep no keys and values"):
        check_student(tmp_path)


def test_broken_weights_and_pickles(folder):
    """A truncated file is the user's to fix; a pickled checkpoint can run code when it is read,
    and is not.
    """
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        check_student(folder)  # before a worker that would load it is started
    weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_student(folder)


def test_a_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot read"):
        check_student(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": "t5", "architectures": ["T5"], "d_model": "wide"}'),
        ("config.json", '{"model_type": "t5", "vocab_size": null, "num_layers": {}}'),
        ("config.json", '{"model_type": 7}'),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "Unigram", "vocab": []}}'),
        ("tokenizer.json", '{"truncated": '),
        ("tokenizer_config.json", "[]"),
        ("model.safetensors", ""),
        ("model.safetensors", "garbage" * 99),
        ("generation_config.json", "[1]"),
    ],
)
def test_a_broken_file_of_a_model_is_the_users_to_mend(folder, file, content):
    """Bug guarded: transformers and tokenizers raise whatever they meet (TypeError, a plain
    Exception of Rust's), which came through as a traceback.
    """
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=str(folder)):
        load_student(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_from_the_hub_is_refused(folder, key):
    """Guards a config.json that has transformers fetch and run compiled code."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: "somebody/kernel"}))
    with pytest.raises(UserError, match=r"code from the hub \(somebody/kernel\)"):
        check_student(folder)
