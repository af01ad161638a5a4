"""Measure the models that the demo's job makes with plain transformers, and write their cards.

They are asked questions that none of them was trained on.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from qcrd_ray.data.records import Question
from qcrd_ray.demo.make import demo_task
from qcrd_ray.method.tokenization import chat_frame
from qcrd_ray.tasks import word_problems
from qcrd_ray.tasks.base import EXPLAIN, PREDICT

MAX_TOKENS = 64
TEMPERATURE = 1.1  # the demo's: hot enough that samples differ and a vote is worth holding
PARTS = (("without", 0.0), ("with", 1.0))
SEED = 3  # as the test splits of jobs/recipes/demo.yaml

CARD = """\
---
license: apache-2.0
library_name: transformers
---

# {title}

{what}

Trained from scratch (seed {seed}) on synthetic stories of `qcrd_ray/tasks/word_problems.py`, \
kind `pretraining`, which no seed of the
other kinds can reach: no training, validation or test question of any recipe was seen, \
nor a renamed one. The pairs of operations held out
there were not seen either. It knows {vocabulary}, and nothing else of the world.

| measured on {questions} questions a row | share right |
|---|---|
{table}

Measure again: `python jobs/make_demo_models.py --check{check_flags}`. \
Make again: `python jobs/make_demo_models.py{make_flags}`. Licence: Apache-2.0.
"""

_SHIPPED = {"check_flags": "", "make_flags": ""}
# by Kind (make.py)
TEXTS = {
    "teacher": _SHIPPED
    | {
        "title": "The demo's teacher",
        "what": (
            "A decoder-only language model (Llama architecture, 0.6 M parameters) that explains"
            " small arithmetic stories step by step.\nIts prompt is `Q: ...` and `A:` on the next"
            " line. It knows stories of one to three steps, with and without useless numbers."
        ),
    },
    "t5": _SHIPPED
    | {
        "title": "The demo's student base",
        "what": (
            "An encoder-decoder (T5 architecture, 0.8 M parameters) that stands where a pretrained"
            " T5 stands in the paper.\n`predict: ` before a story asks for the number, `explain: `"
            " for the steps. It was trained until its learning rate was\nnothing, on stories"
            " without useless numbers: it **lacks** these, and takes every number of a story for a"
            " step."
        ),
    },
    "llama": {
        "title": "A decoder-only student base",
        "what": (
            "A decoder-only language model (Llama architecture, 0.7 M parameters) that learnt what"
            " the demo's student base learnt.\nIts chat template puts a question on a line of its"
            " own: `predict: ` before a story asks for the number, `explain: `\nfor the steps. It"
            " was trained until its learning rate was nothing, on stories without useless numbers:"
            " it **lacks**\nthese, and takes every number of a story for a step."
        ),
        "check_flags": " --out FOLDER",
        "make_flags": " --student-kind llama --out FOLDER",
    },
}


def measure(folder: Path, *, questions: int) -> dict[str, dict[str, float]]:
    """The share of questions that each model gets right, by row of its card.

    ``folder`` holds ``teacher``, ``student`` or both.
    """
    splits = {
        kind: word_problems.generate(questions, seed=SEED, kind=kind)
        for kind in ("seen", "held_out")
    }
    splits |= {
        f"seen, {what} a useless number": word_problems.generate(
            questions, seed=SEED, distractors=share
        )
        for what, share in PARTS
    }
    teacher, student = folder / "teacher", folder / "student"
    figures: dict[str, dict[str, float]] = {
        model.name: {} for model in (teacher, student) if model.is_dir()
    }
    for kind, asked in splits.items():
        if "teacher" in figures:
            shares = teacher_accuracy(teacher, asked, temperature=TEMPERATURE)
            for name, share in shares.items():
                figures["teacher"][f"{kind}, T={TEMPERATURE}: {name}"] = share
        if "student" in figures:
            for name, share in student_accuracy(student, asked).items():
                figures["student"][f"{kind}: {name} head"] = share
    return figures


def write_cards(
    folder: Path, figures: dict[str, dict[str, float]], *, seed: int, questions: int
) -> None:
    """Write each model's README.md."""
    vocabulary = f"the story's words and the numbers 0 to {word_problems.LARGEST}"
    for name, rows in figures.items():
        table = "\n".join(f"| {row} | {share:.3f} |" for row, share in rows.items())
        kind = name if name == "teacher" else AutoConfig.from_pretrained(folder / name).model_type
        card = CARD.format(
            **TEXTS[kind], seed=seed, vocabulary=vocabulary, questions=questions, table=table
        )
        (folder / name / "README.md").write_text(card, encoding="utf-8")


def teacher_accuracy(
    folder: Path,
    questions: list[Question],
    *,
    temperature: float,
    k: int = 5,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, float]:
    """The teacher's accuracy by single samples and by a vote of k.

    Returns:
        The shares of right ``single`` samples, of right ``vote`` s, and of ``tied`` votes, which
        count as wrong.
    """
    torch.manual_seed(seed)
    task = demo_task()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    sampling = {
        "do_sample": True,
        "temperature": temperature,
        "num_return_sequences": k,
        "top_k": 0,
    }
    prompts = [task.teacher_prompt(question) for question in questions]
    texts = _generate(model, tokenizer, prompts, batch_size=batch_size, **sampling)
    right = {"single": 0.0, "vote": 0.0, "tied": 0.0}
    for row, question in enumerate(questions):
        answers = [task.parse(text, question).answer for text in texts[row * k : (row + 1) * k]]
        ranked = Counter(answer for answer in answers if answer is not None).most_common(2)
        tied = not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1])
        right["single"] += sum(answer == question.answer for answer in answers) / k
        right["tied"] += tied
        right["vote"] += not tied and ranked[0][0] == question.answer
    return {name: count / len(questions) for name, count in right.items()}


def student_accuracy(
    folder: Path, questions: list[Question], *, batch_size: int = 64
) -> dict[str, float]:
    """Shares of the questions that the greedy ``label`` and ``rationale`` heads get right."""
    task = demo_task()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = after = ""
    auto = AutoModelForSeq2SeqLM
    if tokenizer.chat_template:  # decoder-only
        before, after = chat_frame(tokenizer)
        auto, tokenizer.padding_side = AutoModelForCausalLM, "left"
    model = auto.from_pretrained(folder)
    right = {}
    for head, prefix in (("label", PREDICT), ("rationale", EXPLAIN)):
        texts = _generate(
            model,
            tokenizer,
            [before + prefix + task.student_input(q) + after for q in questions],
            batch_size=batch_size,
            do_sample=False,
        )
        answers = [
            task.parse(text, question).answer
            for text, question in zip(texts, questions, strict=True)
        ]
        right[head] = sum(
            answer == question.answer for answer, question in zip(answers, questions, strict=True)
        ) / len(questions)
    return right


@torch.inference_mode()
def _generate(
    model: Any,  # transformers' types have no `generate` that can be called
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    batch_size: int,
    **sampling: Any,
) -> list[str]:
    """The new text for each prompt, in order; prompts of like length are run together."""
    model.eval()
    each = sampling.get("num_return_sequences", 1)
    texts: list[list[str]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer([prompts[row] for row in rows], padding=True, return_tensors="pt")
        out = model.generate(**batch, max_new_tokens=MAX_TOKENS, **sampling)
        new = out if model.config.is_encoder_decoder else out[:, batch.input_ids.shape[1] :]
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        for index, row in enumerate(rows):
            texts[row] = decoded[index * each : (index + 1) * each]
    return [text for several in texts for text in several]
