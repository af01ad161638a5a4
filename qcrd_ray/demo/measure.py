"""Measure the demo's two models with plain transformers, and write their model cards.

They are asked questions that neither was trained on.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from qcrd_ray.data.records import Question
from qcrd_ray.demo.make import demo_task
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

Measure again: `python jobs/make_demo_models.py --check`. \
Make again: `python jobs/make_demo_models.py`. Licence: Apache-2.0.
"""

TEXTS = {
    "teacher": {
        "title": "The demo's teacher",
        "what": (
            "A decoder-only language model (Llama architecture, 0.6 M parameters) that explains"
            " small arithmetic stories step by step.\nIts prompt is `Q: ...` and `A:` on the next"
            " line. It knows stories of one to three steps, with and without useless numbers."
        ),
    },
    "student": {
        "title": "The demo's student base",
        "what": (
            "An encoder-decoder (T5 architecture, 0.8 M parameters) that stands where a pretrained"
            " T5 stands in the paper.\n`predict: ` before a story asks for the number, `explain: `"
            " for the steps. It was trained until its learning rate was\nnothing, on stories"
            " without useless numbers: it **lacks** these, and takes every number of a story for a"
            " step."
        ),
    },
}


def measure(folder: Path, *, questions: int) -> dict[str, dict[str, float]]:
    """The share of questions that each model gets right, by row of its card."""
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
    figures: dict[str, dict[str, float]] = {"teacher": {}, "student": {}}
    for kind, asked in splits.items():
        for name, share in teacher_accuracy(
            folder / "teacher", asked, temperature=TEMPERATURE
        ).items():
            figures["teacher"][f"{kind}, T={TEMPERATURE}: {name}"] = share
        for name, share in student_accuracy(folder / "student", asked).items():
            figures["student"][f"{kind}: {name} head"] = share
    return figures


def write_cards(
    folder: Path, figures: dict[str, dict[str, float]], *, seed: int, questions: int
) -> None:
    """Write each model's README.md."""
    vocabulary = f"the story's words and the numbers 0 to {word_problems.LARGEST}"
    for name, rows in figures.items():
        table = "\n".join(f"| {row} | {share:.3f} |" for row, share in rows.items())
        card = CARD.format(
            **TEXTS[name], seed=seed, vocabulary=vocabulary, questions=questions, table=table
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
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    right = {}
    for head, prefix in (("label", PREDICT), ("rationale", EXPLAIN)):
        texts = _generate(
            model,
            tokenizer,
            [prefix + task.student_input(q) for q in questions],
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
