"""A student base that spells, for names of its own making and one or two words only.

It stands where a pretrained T5 stands in the paper: it copies names, finds their last letters and
joins them, in the wording of the recorded completions. It has never seen more than two words, so it
lacks what the teacher's four can teach it: it gets no question of three or four right. On one core
it takes six minutes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from qcrd_ray.data.records import Question
from qcrd_ray.demo.last_letters.questions import ask, last_letters_task
from qcrd_ray.demo.last_letters.tokenizer import build_tokenizer
from qcrd_ray.demo.small_models import CHAT_TEMPLATE, MAX_TOKENS, llama, pairs, t5
from qcrd_ray.demo.training_loop import Batches, Plan, train
from qcrd_ray.tasks.base import EXPLAIN, PREDICT


@dataclass(frozen=True, slots=True, kw_only=True)
class SpellingPlan(Plan):
    """One phase of training on made-up names: also how many of them a question has."""

    words: tuple[int, ...] = (1, 2)


PLANS = {
    "t5": (SpellingPlan(steps=800),),
    "llama": (SpellingPlan(steps=800),),
}

# syllables; "": none
ONSETS = (
    "", "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "kh", "l", "m", "n", "p",
    "ph", "qu", "r", "s", "sh", "st", "t", "th", "v", "w", "x", "y", "z",
)  # fmt: skip
VOWELS = (
    "a", "e", "i", "o", "u", "y", "ae", "ai", "ea", "ee", "ia", "ie", "io", "oa", "ou", "é", "á",
    "ó", "í",
)  # fmt: skip
CODAS = (
    "", "", "", "b", "c", "ck", "d", "f", "g", "h", "k", "l", "ll", "m", "n", "nn", "p", "r", "s",
    "ss", "t", "tt", "th", "v", "w", "x", "y", "z",
)  # fmt: skip


def make_name(draw: random.Random) -> str:
    """A name of one to four syllables, or, now and then, two consonants ("Jd")."""
    if draw.random() < 0.05:
        name = "".join(draw.choices("bcdfghjklmnpqrstvwxz", k=2))
    else:
        syllables = draw.choices((1, 2, 3, 4), weights=(3, 5, 3, 1))[0]
        name = "".join(
            draw.choice(ONSETS) + draw.choice(VOWELS) + draw.choice(CODAS) for _ in range(syllables)
        )
    return name[:10].capitalize()


def make_questions(
    words: Sequence[int], *, seed: int, avoid: Collection[str] = ()
) -> Iterator[Question]:
    """Endless questions on made-up names, none of them in ``avoid`` (lower case)."""
    draw = random.Random(f"spelling {seed}")
    for number in itertools.count():
        names: list[str] = []
        wanted = draw.choice(words)
        while len(names) < wanted:
            if (name := make_name(draw)).lower() not in avoid:
                names.append(name)
        yield ask(names, f"spelling-{seed}-{number:06d}")


def make_base(
    kind: str,
    folder: Path,
    *,
    plans: Sequence[SpellingPlan],
    avoid: Collection[str],
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Train a base, ``t5`` or ``llama``, by ``plans``, one after another, and save it.

    Args:
        avoid: names, in lower case, that it must not see.
    """
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("medium")  # bfloat16 products where the processor has them
    tokenizer = build_tokenizer(ends_input=kind == "t5", max_tokens=MAX_TOKENS)
    if kind == "llama":
        tokenizer.chat_template = CHAT_TEMPLATE
    model = (t5 if kind == "t5" else llama)(tokenizer)
    for phase, plan in enumerate(plans):
        train(model, _batches(tokenizer, plan, seed + 1_000 * phase, avoid), plan, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batches(
    tokenizer: PreTrainedTokenizerFast, plan: SpellingPlan, seed: int, avoid: Collection[str]
) -> Batches:
    """The two heads of each question: `predict:` gives the letters, `explain:` the steps."""
    task = last_letters_task()
    questions = make_questions(plan.words, seed=seed, avoid=avoid)
    while True:
        asked = list(itertools.islice(questions, plan.batch_size))
        answers = [task.canonical(q.answer or "", q) or "" for q in asked]
        explanations = [
            task.explanation(q.rationale or "", answer, q)
            for q, answer in zip(asked, answers, strict=True)
        ]
        yield [
            pairs(tokenizer, [PREDICT + task.student_input(q) for q in asked], answers),
            pairs(tokenizer, [EXPLAIN + task.student_input(q) for q in asked], explanations),
        ]
