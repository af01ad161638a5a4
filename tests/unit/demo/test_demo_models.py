"""The shipped models: small, whole, readable by transformers alone, and made by a job that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from qcrd_ray.demo.make import PLANS, demo_task
from qcrd_ray.demo.measure import student_accuracy, teacher_accuracy
from qcrd_ray.demo.tokenizer import words
from qcrd_ray.models.pretrained import demo_model
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks import word_problems as wp
from qcrd_ray.tasks.base import EXPLAIN, PREDICT

ROOT = Path(__file__).resolve().parents[3]
TASK = demo_task()
QUESTIONS = wp.generate(60, seed=3) + wp.generate(20, seed=3, kind="held_out")


def test_both_models_with_their_tokenizers_take_at_most_8_megabytes():
    files = [file for name in PLANS for file in demo_model(name).iterdir()]
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
    for name in PLANS:
        tokenizer = AutoTokenizer.from_pretrained(demo_model(name))
        for question in QUESTIONS:
            explanation = TASK.explanation(question.rationale, question.answer)
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
    for name in PLANS:
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
    for name in PLANS:
        assert {file.name for file in (tmp_path / name).iterdir()} == {
            file.name for file in demo_model(name).iterdir()
        }
        assert "Apache-2.0" in (tmp_path / name / "README.md").read_text()
