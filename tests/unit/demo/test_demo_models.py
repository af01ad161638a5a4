"""The shipped models: small, whole, readable by transformers alone, and made by a job that runs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from qcrd_ray.demo.make import PLANS, _stories, _student_batches, demo_task, make
from qcrd_ray.demo.measure import student_accuracy, teacher_accuracy
from qcrd_ray.demo.tokenizer import words
from qcrd_ray.inference.base import encode
from qcrd_ray.method.tokenization import chat_frame, tokenize
from qcrd_ray.models.names import demo_model
from qcrd_ray.models.pretrained import check_student, load_student
from qcrd_ray.recipe import StudentRecipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks import word_problems as wp
from qcrd_ray.tasks.base import EXPLAIN, PREDICT
from qcrd_ray.training.start_models import write_start

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ("teacher", "student")
TASK = demo_task()
QUESTIONS = wp.generate(60, seed=3) + wp.generate(20, seed=3, kind="held_out")


def test_both_models_with_their_tokenizers_take_at_most_8_megabytes():
    files = [file for name in SHIPPED for file in demo_model(name).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md"}


@pytest.mark.parametrize(
    ("name", "loader"), [("teacher", AutoModelForCausalLM), ("student", AutoModelForSeq2SeqLM)]
)
def test_a_model_loads_with_transformers_alone(name, loader, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, loading = loader.from_pretrained(demo_model(name), output_loading_info=True)
    assert (
        not loading["missing_keys"]
        and not loading["unexpected_keys"]
        and not loading["mismatched_keys"]
    )
    tokenizer = AutoTokenizer.from_pretrained(demo_model(name))
    assert len(tokenizer) == model.config.vocab_size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (
        model.config.pad_token_id,
        model.config.eos_token_id,
    )


def test_the_tokenizers_know_every_word_of_questions_prompts_and_answers_and_give_the_text_back():
    """Guards unknown tokens in what the demo asks, and lost spaces in what it answers."""
    for name in SHIPPED:
        tokenizer = AutoTokenizer.from_pretrained(demo_model(name))
        for question in QUESTIONS:
            explanation = TASK.explanation(question.rationale, question.answer, question)
            for text in (
                TASK.teacher_prompt(question),
                PREDICT + question.question,
                EXPLAIN + question.question,
                explanation,
            ):
                ids = tokenizer(text).input_ids
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids, skip_special_tokens=True) == text
            assert (tokenizer(explanation).input_ids[-1] == tokenizer.eos_token_id) == (
                name == "student"
            )


def test_the_shipped_vocabulary_is_the_one_that_the_generator_has_today():
    """Guards a changed template or name under models that were made before it."""
    for name in SHIPPED:
        assert set(words()) <= set(AutoTokenizer.from_pretrained(demo_model(name)).get_vocab())


def test_the_teacher_is_right_more_often_than_not_and_its_vote_more_often_still():
    """A loose guard on broken weights; the cards hold the measured figures."""
    temperature = load_recipe(ROOT / "jobs/recipes/demo.yaml").sampling.temperature
    right = teacher_accuracy(demo_model("teacher"), QUESTIONS[:60], temperature=temperature)
    assert right["single"] > 0.5
    assert right["vote"] > right["single"]


def test_the_student_base_answers_what_it_was_taught_and_lacks_what_the_teacher_knows():
    known, lacking = (wp.generate(80, seed=3, distractors=share) for share in (0.0, 1.0))
    right = [
        student_accuracy(demo_model("student"), questions)["rationale"]
        for questions in (known, lacking)
    ]
    assert right[0] > 0.55 and right[0] > right[1] + 0.2


def test_no_split_of_the_demo_can_share_a_question_with_another_or_with_pretraining():
    data = load_recipe(ROOT / "jobs/recipes/demo.yaml").data
    drawn = [
        wp.pools(seed=s.seed, kind=s.kind or "seen")
        for s in (data.train, data.validation, data.test, data.held_out)
    ]
    drawn.append(wp.pools(seed=0, kind="pretraining"))
    assert sum(map(len, drawn)) == len(frozenset.union(*drawn))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder-only base after two steps of each phase."""
    folder = tmp_path_factory.mktemp("decoder")
    plans = [dataclasses.replace(plan, steps=2, batch_size=4) for plan in PLANS["llama"]]
    make("llama", folder, plans=plans, report=lambda line: None)
    return folder


def test_a_decoder_only_base_is_a_student_of_the_demos_size_and_words(decoder):
    """Guards a base that training refuses: other special tokens, or a template of no use."""
    config, tokenizer = check_student(decoder)
    assert (config.model_type, config.is_encoder_decoder) == ("llama", False)
    weights = sum(weight.numel() for weight in load_student(decoder)[0].parameters())
    assert 600_000 <= weights <= 800_000
    shipped = AutoTokenizer.from_pretrained(demo_model("student"))
    assert tokenizer.get_vocab() == shipped.get_vocab()
    before, after = chat_frame(tokenizer)
    asked = before + EXPLAIN + QUESTIONS[0].question + after
    assert tokenizer.unk_token_id not in tokenizer(asked).input_ids


def test_a_decoder_only_base_is_pretrained_on_what_training_reads_and_generation_sends(
    decoder, tmp_path
):
    """Guards a base that learnt another seam between question and answer than it is used with: each
    pretraining row is the prompt as the engine encodes it, then the target as training cuts it, and
    nothing but the target is learnt. So is the folder that a run starts from.
    """
    student = StudentRecipe(model=str(decoder), max_input_tokens=128, max_target_tokens=64)
    started = write_start(student, tmp_path / "start", texts=(), seed=0)
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    plan = dataclasses.replace(PLANS["llama"][1], batch_size=4, labels_every=1)
    stories = next(_stories(plan, 7))
    heads = {
        PREDICT: [story.answer for story in stories],
        EXPLAIN: [TASK.explanation(story.rationale, story.answer, story) for story in stories],
    }
    (part,) = next(_student_batches(tokenizer, plan, 7))
    prompts = encode(started, [each + s.question for each in heads for s in stories], 128)
    targets = tokenize(started, [a for each in heads.values() for a in each], max_tokens=64).rows
    for ids, mask, labels, prompt, target in zip(
        part["input_ids"].tolist(),
        part["attention_mask"].sum(dim=1).tolist(),
        part["labels"].tolist(),
        prompts,
        targets,
        strict=True,
    ):
        assert ids[:mask] == [*prompt, *target]
        assert labels == [-100] * len(prompt) + [*target] + [-100] * (len(ids) - mask)


def test_a_decoder_only_base_is_asked_in_its_own_format(decoder, monkeypatch):
    """Guards a measurement that leaves out the template, pads behind the prompt, or counts the
    prompt's own numbers as the answer.
    """
    asked = []

    class Recording:
        """Says the first question's answer to all."""

        config = AutoConfig.from_pretrained(decoder)

        def eval(self):
            return self

        def generate(self, input_ids, attention_mask, **_):
            tokenizer = AutoTokenizer.from_pretrained(decoder)
            asked.extend(tokenizer.batch_decode(input_ids))
            said = tokenizer([f"So the answer is {QUESTIONS[0].answer}."], return_tensors="pt")
            return torch.cat([input_ids, said.input_ids.repeat(len(input_ids), 1)], dim=1)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda folder: Recording())
    right = student_accuracy(decoder, QUESTIONS[:8])
    expected = sum(question.answer == QUESTIONS[0].answer for question in QUESTIONS[:8]) / 8
    assert right["rationale"] == expected < 1
    assert len(asked) == 16 and all(text.endswith("?\n") for text in asked)
    assert any(text.startswith("<pad>") for text in asked)


def test_the_job_never_writes_a_decoder_over_the_shipped_base():
    call = [sys.executable, str(ROOT / "jobs/make_demo_models.py"), "--student-kind", "llama"]
    refused = subprocess.run(call, timeout=120, capture_output=True, text=True)
    assert refused.returncode == 2 and "--out" in refused.stderr


@pytest.mark.long
def test_the_job_makes_both_models_anew_with_their_cards(tmp_path):
    call = [
        sys.executable,
        str(ROOT / "jobs/make_demo_models.py"),
        "--out",
        str(tmp_path),
        "--steps",
        "2",
        "--questions",
        "4",
    ]
    subprocess.run(call, check=True, timeout=300, capture_output=True)
    for name in SHIPPED:
        assert {file.name for file in (tmp_path / name).iterdir()} == {
            file.name for file in demo_model(name).iterdir()
        }
        assert "Apache-2.0" in (tmp_path / name / "README.md").read_text()
    subprocess.run([*call, "--student-kind", "llama"], check=True, timeout=300, capture_output=True)
    assert "--student-kind llama" in (tmp_path / "student" / "README.md").read_text()
