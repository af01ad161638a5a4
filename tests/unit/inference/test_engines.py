"""The engines against Hugging Face's `generate` and against each other, and the promises that
sampling rests on.
"""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
import torch
from teacher_tiny import write_llama
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.generation import TopPLogitsWarper

from qcrd_ray.errors import UserError
from qcrd_ray.inference import TransformersEngine, choose_engine, load_engine
from qcrd_ray.inference import ctranslate2_engine as converted
from qcrd_ray.inference.transformers_engine import sample
from qcrd_ray.models.pretrained import load_model
from qcrd_ray.tasks.word_problems import generate

PROMPTS = [
    "predict: 3 plus 4",
    "explain: Tom has 12 apples and buys 30 more. How many apples has he now?",
    "predict: 7",
    "a b c d",
]


def make_lively(student, folder):
    """A copy of a tiny student that ends its texts at various lengths: with tied random weights
    greedy repeats one token for ever.
    """
    torch.manual_seed(4)
    model = load_model(student)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.5)
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        model.lm_head.weight[model.config.eos_token_id] *= 2.0
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(student).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lively(tiny_student, tmp_path_factory):
    return make_lively(tiny_student, tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def engine(lively) -> TransformersEngine:
    return load_engine(lively, batch_size=3)


@pytest.fixture(scope="module", params=["tiny_student", "tiny_decoder"])
def folder(request, tmp_path_factory):
    """The folder of a lively student of each kind."""
    return make_lively(request.getfixturevalue(request.param), tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def either(folder) -> TransformersEngine:
    """An engine around a student of each kind."""
    return load_engine(folder, batch_size=3)


def test_greedy_equals_hugging_face(either):
    """Rows that end leave the batch: a cache or mask row that stayed behind would change the text
    of the others.
    """
    tokenizer, model = either.tokenizer, either.model
    prompts = [f"{prompt} {i}" for i in range(6) for prompt in PROMPTS]
    ours = either.generate(prompts, max_tokens=20)
    for prompt, (mine,) in zip(prompts, ours, strict=True):
        message = [{"role": "user", "content": prompt}]
        ids = tokenizer(prompt).input_ids
        if tokenizer.chat_template:
            ids = tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        read = 1 if model.config.is_encoder_decoder else len(ids)
        theirs = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[
            0, read:
        ].tolist()
        assert mine.text == tokenizer.decode(theirs, skip_special_tokens=True).strip()
        assert (mine.tokens, mine.finish_reason) == (
            len(theirs),
            "stop" if theirs[-1] == tokenizer.eos_token_id else "length",
        )
    assert {generated.finish_reason for (generated,) in ours} == {
        "stop",
        "length",
    }, "the model ends too early or too late to test anything"
    assert len({generated.tokens for (generated,) in ours}) > 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_looking_seldom_at_what_has_ended_changes_no_text(either, monkeypatch, temperature):
    """On a GPU a look waits for it. A row that has ended is decoded on, unseen, to no effect."""
    prompts = [f"{prompt} {i}" for i in range(3) for prompt in PROMPTS]
    asked = {"max_tokens": 20, "temperature": temperature}
    always = either.generate(prompts, **asked)
    monkeypatch.setattr(either, "look_every", 7)
    assert either.generate(prompts, **asked) == always


def test_results_come_in_the_order_of_the_prompts(either):
    """Prompts are batched by length; a result must find its way back."""
    alone = [either.generate([prompt], max_tokens=12)[0][0].text for prompt in PROMPTS]
    assert [generated.text for (generated,) in either.generate(PROMPTS, max_tokens=12)] == alone
    assert len(set(alone)) == len(PROMPTS)


def test_samples_depend_on_seed_prompt_and_number_alone(either, folder):
    """A sample that depended on its batch would change when a run is resumed or shared out among
    other workers.
    """
    ask = {"n": 3, "temperature": 1.5, "top_p": 0.95, "max_tokens": 12}
    together = either.generate(PROMPTS, seed=7, **ask)
    assert either.generate(PROMPTS[::-1], seed=7, **ask)[::-1] == together
    assert [
        load_engine(folder, batch_size=64).generate([prompt], seed=7, **ask)[0]
        for prompt in PROMPTS
    ] == together
    assert either.generate(PROMPTS, seed=8, **ask) != together
    assert all(len({generated.text for generated in samples}) > 1 for samples in together)
    first = either.generate(PROMPTS, seed=7, n=1, temperature=1.5, top_p=0.95, max_tokens=12)
    assert [samples[0] for samples in together] == [samples[0] for samples in first]


def test_generation_leaves_the_process_as_it_was(either):
    """The live module of a training is validated through this: its mode, its gradients and the
    global random state are not ours.
    """
    either.model.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    either.generate(PROMPTS, temperature=1.0, max_tokens=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert either.model.training
    loss = either.model(input_ids=torch.tensor([[5, 6, 1]]), labels=torch.tensor([[7, 8, 1]])).loss
    loss.backward()
    either.model.zero_grad()
    either.model.eval()


def test_no_top_k():
    """`generate` cuts to the 50 likeliest tokens unless told otherwise: a temperature of 1.5 would
    not be what it says.
    """
    drawn = sample(
        torch.zeros(4000, 200),
        top_p=1.0,
        uniforms=torch.from_numpy(np.random.default_rng(0).random(4000)),
    )
    assert len(drawn.unique()) == 200


def test_sampling_follows_the_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.0, 0.2])
    uniforms = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 1.0 - 2**-53], dtype=torch.float64)
    drawn = sample(probabilities.log().expand(6, 4), top_p=1.0, uniforms=uniforms)
    assert drawn[:, 0].tolist() == [0, 0, 1, 1, 3, 3]


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
def test_top_p_keeps_the_nucleus(top_p):
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 2
    kept = TopPLogitsWarper(top_p)(None, logits).isfinite()[0].nonzero()[:, 0].tolist()
    uniforms = torch.from_numpy(np.linspace(0, 1, 20_000, endpoint=False))
    assert (
        sample(logits.expand(20_000, 50), top_p=top_p, uniforms=uniforms).unique().tolist() == kept
    )


def test_max_tokens_is_told_as_length(either):
    (generated,) = either.generate(["predict: 3"], max_tokens=1)[0]
    assert generated.tokens == 1
    assert either.generate([], max_tokens=5) == []


def test_inputs_are_cut_and_keep_their_end(lively):
    """A question of 100,000 characters must not take the memory of one, and a cut input must still
    end with EOS.
    """
    engine = load_engine(lively, max_input_tokens=16)
    long = "Tom has 5 apples " * 6_000
    ids = engine.tokenizer(long, truncation=True, max_length=16).input_ids
    assert len(ids) == 16 and ids[-1] == engine.tokenizer.eos_token_id
    assert (
        engine.generate([long], max_tokens=3)[0] == engine.generate([long[:-600]], max_tokens=3)[0]
    )


def test_load_weights_in_place(either, folder, tiny_student, tiny_decoder):
    """Samplers swap snapshots in a live process; the texts must be those of the new weights."""
    engine = load_engine(folder)
    swapped, kept = engine.generate(PROMPTS, max_tokens=8), engine.model
    plain = tiny_student if kept.config.is_encoder_decoder else tiny_decoder
    engine.load_weights(plain)
    assert (
        engine.generate(PROMPTS, max_tokens=8)
        == load_engine(plain).generate(PROMPTS, max_tokens=8)
        != swapped
    )
    engine.load_weights(folder)
    assert engine.generate(PROMPTS, max_tokens=8) == swapped
    assert engine.model is kept


def test_load_weights_of_tied_models(tiny_student, tmp_path):
    """A T5's safetensors hold one matrix for embeddings and output; both must follow a swap."""
    torch.manual_seed(5)
    other = AutoModelForSeq2SeqLM.from_pretrained(tiny_student)
    with torch.no_grad():
        other.shared.weight.normal_()
    other.save_pretrained(tmp_path)
    engine = load_engine(tiny_student)
    engine.load_weights(tmp_path)
    assert torch.equal(engine.model.lm_head.weight, other.shared.weight)
    assert torch.equal(engine.model.encoder.embed_tokens.weight, other.shared.weight)


def test_ctranslate2_writes_what_transformers_writes(engine, lively):
    """Texts, token counts and finish reasons, also of an untied model; ctranslate2 alone would cut
    inputs without their end, and forbid
    an empty text.
    """
    fast = load_engine(lively, engine="ctranslate2", batch_size=3)
    prompts = [f"{prompt} {i}" for i in range(6) for prompt in PROMPTS]
    assert fast.generate(prompts, max_tokens=20) == engine.generate(prompts, max_tokens=20)
    assert fast.generate(PROMPTS, n=2, max_tokens=8) == engine.generate(PROMPTS, n=2, max_tokens=8)
    assert fast.generate([], max_tokens=5) == []
    short = {"batch_size": 3, "max_input_tokens": 16}
    long = ["Tom has 5 apples " * 600]
    cut = load_engine(lively, engine="ctranslate2", **short).generate(long, max_tokens=9)
    assert cut == load_engine(lively, **short).generate(long, max_tokens=9)


def test_ctranslate2_keeps_the_promises_of_samples(engine, lively):
    """Its own random numbers cannot be seeded for a request: the same question would get other
    samples every time.
    """
    ask = {"n": 3, "temperature": 1.5, "top_p": 0.95, "max_tokens": 12, "seed": 7}
    assert load_engine(lively, engine="ctranslate2").generate(PROMPTS, **ask) == engine.generate(
        PROMPTS, **ask
    )


def test_a_folder_that_changed_is_not_sampled_from(lively, tiny_student, tmp_path):
    """The weights for samples are read later than those for greedy texts: they must be the same."""
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    fast = load_engine(folder, engine="ctranslate2")
    shutil.copytree(lively, folder, dirs_exist_ok=True)
    with pytest.raises(UserError, match="has changed since it was loaded"):
        fast.generate(PROMPTS, temperature=1.0, max_tokens=4)


def test_ctranslate2_takes_other_weights(lively, tiny_student):
    fast = load_engine(tiny_student, engine="ctranslate2")
    fast.load_weights(lively)
    assert fast.generate(PROMPTS, max_tokens=8) == load_engine(lively).generate(
        PROMPTS, max_tokens=8
    )
    sampled = {"temperature": 1.0, "max_tokens": 8}
    assert fast.generate(PROMPTS, **sampled) == load_engine(lively).generate(PROMPTS, **sampled)


def test_a_model_is_converted_once(lively, tmp_path, monkeypatch):
    """Replicas that start together convert at once: the slower one must take what the faster one
    made, and leave nothing behind.
    """
    monkeypatch.setenv("QCRD_CACHE", str(tmp_path))
    convert = converted._Converter.convert

    def overtaken(self, *args, **kwargs):
        done = convert(self, *args, **kwargs)
        monkeypatch.setattr(converted._Converter, "convert", convert)
        load_engine(lively, engine="ctranslate2")
        return done

    monkeypatch.setattr(converted._Converter, "convert", overtaken)
    texts = load_engine(lively, engine="ctranslate2").generate(PROMPTS, max_tokens=8)
    (folder,) = (tmp_path / "ctranslate2").iterdir()
    written = (folder / "model.bin").stat().st_mtime_ns
    assert load_engine(lively, engine="ctranslate2").generate(PROMPTS, max_tokens=8) == texts
    assert (folder / "model.bin").stat().st_mtime_ns == written


def test_a_cache_that_cannot_be_written_is_told(lively, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QCRD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"serve\.engine: .* QCRD_CACHE"):
        load_engine(lively, engine="ctranslate2")


def test_ctranslate2_on_the_shipped_student():
    """A trained model's texts, where a rounding error could tip a token: at least 99 of 100
    problems read the same.
    """
    prompts = [f"explain: {question.question}" for question in generate(100, seed=77)]
    slow, fast = (
        load_engine("demo", engine=name).generate(prompts, max_tokens=64)
        for name in ("transformers", "ctranslate2")
    )
    assert sum(a == b for a, b in zip(slow, fast, strict=True)) >= 99


@pytest.mark.long
def test_ctranslate2_is_faster():
    """Why `auto` takes it for serving on a CPU."""
    prompts = [
        f"{head}: {question.question}"
        for question in generate(200, seed=78)
        for head in ("predict", "explain")
    ]
    engines = {
        name: load_engine("demo", engine=name, batch_size=32)
        for name in ("transformers", "ctranslate2")
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(5):
        for name, each in engines.items():
            start = time.perf_counter()
            each.generate(prompts, max_tokens=64)
            seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    print({name: f"{len(prompts) / time:.0f} texts/s" for name, time in best.items()})
    assert best["transformers"] > 1.5 * best["ctranslate2"]


def test_which_engine_runs_which_model(tiny_student, tmp_path, monkeypatch):
    llama = write_llama(tmp_path)
    assert choose_engine(tiny_student, device="cpu") == "ctranslate2"
    assert choose_engine(tiny_student, device="cuda") == "transformers"
    assert choose_engine(llama) == "vllm"
    with pytest.raises(
        UserError,
        match=(
            r"serve\.engine: vllm cannot run .* encoder-decoder \(t5\); use auto, or ctranslate2 or"
            r" transformers"
        ),
    ):
        load_engine(tiny_student, engine="vllm")
    assert choose_engine(llama, "transformers") == "transformers"
    with monkeypatch.context() as patch:
        patch.setattr("qcrd_ray.inference.select.find_spec", lambda name: None)
        assert (
            choose_engine(llama) == choose_engine(tiny_student, device="cpu") == "transformers"
        ), "where nothing faster is installed"
    with pytest.raises(
        UserError,
        match=(
            r"serve\.engine: ctranslate2 cannot run .* decoder-only model \(llama\); use auto, or"
            r" transformers or vllm"
        ),
    ):
        load_engine(llama, engine="ctranslate2")
