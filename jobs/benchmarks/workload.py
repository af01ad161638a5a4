"""What the benchmarks work on: made-up word problems, and samples of a teacher for them.

Nothing is asked of a model for it, so that each benchmark measures one thing alone.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, T5Config

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Question
from qcrd_ray.models.names import demo_model
from qcrd_ray.models.pretrained import read_tokenizer
from qcrd_ray.rationales.poll import Poll, Reply
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.word_problems import generate
from qcrd_ray.teacher import TeacherAnswer

DEMO = Path(__file__).resolve().parents[1] / "recipes" / "demo.yaml"
RIGHT = 0.7  # share of the samples
_LEAD = (
    "Let us go through the story step by step, and check each number with care.",
    "First we write down what is given.",
    "We read the question once more, to be sure of what is asked.",
    "There may be numbers that are of no use here.",
)


def demo(*overrides: str) -> Recipe:
    """The demo's recipe with other values."""
    return load_recipe(DEMO, overrides)


def samples_of(question: Question, *, k: int = 5, lead: bool = False) -> list[str]:
    """What a teacher may say: its reasoning, sometimes with a wrong number, and an answer.

    ``lead`` puts sentences before it, to the length of what an LLM writes.
    """
    draw = random.Random(question.id)
    assert question.rationale is not None
    texts = []
    for _ in range(k):
        reasoning, answer = question.rationale, question.answer
        if draw.random() > RIGHT:
            answer = str(int(question.answer or 0) + draw.randint(1, 9))
            reasoning = re.sub(r"\d+(?=\D*$)", answer, reasoning)
        words = " ".join(draw.sample(_LEAD, len(_LEAD))) + " " if lead else ""
        texts.append(f"{words}{reasoning} So the answer is {answer}.")
    return texts


def rationales(recipe: Recipe, questions: int) -> pa.Table:
    """Voted rationales (RATIONALE_SET_SCHEMA) of so many questions."""
    task, rows = build_task(recipe.task), []
    for question in generate(questions, seed=1):
        poll = Poll(question.id, question, "", recipe=recipe, task=task)
        said = tuple(
            Completion(text=text, tokens=len(text) // 4)
            for text in samples_of(question, k=recipe.sampling.k)
        )
        poll.take(Reply(TeacherAnswer(said), attempts=1), len(said))
        rows.append(poll.rationale_set().row())
    return pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA)


def random_t5(folder: Path, **shape: Any) -> Path:
    """A random T5 of this shape with the demo's tokenizer in ``folder``, unless it is there."""
    if not folder.exists():
        torch.manual_seed(0)
        config = T5Config(**shape)
        config.pad_token_id = config.decoder_start_token_id = 0
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
        read_tokenizer(demo_model("student")).save_pretrained(folder)
    return folder


def random_llama(folder: Path, **shape: Any) -> Path:
    """The same as the demo's teacher is: four layers of 256, some four million weights."""
    if not folder.exists():
        torch.manual_seed(0)
        tokenizer = read_tokenizer(demo_model("teacher"))
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            **shape,
        )
        config.bos_token_id = None
        config.update(
            {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
