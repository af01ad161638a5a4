"""Measure the demo's two models with plain transformers, on questions that neither was trained
on.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qcrd_ray.data.records import Question
from qcrd_ray.demo.make import demo_task
from qcrd_ray.tasks.base import EXPLAIN, PREDICT

MAX_TOKENS = 64


def teacher_accuracy(
    folder: Path,
    questions: list[Question],
    *,
    temperature: float,
    k: int = 5,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, float]:
    """Shares of the questions: ``single`` samples that are right, ``vote`` of k that is right, and
    ``tied`` votes (they count as wrong).
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
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    batch_size: int,
    **sampling,
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
