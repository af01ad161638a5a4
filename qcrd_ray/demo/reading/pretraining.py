"""A student base that has learnt to read word problems: a T5 of 1.5 M parameters and its tokenizer.

It stands where a pretrained T5 stands in the paper. It learns both heads, with slots for the
numbers (``tasks/slots.py``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qcrd_ray.demo.reading.examples import Example
from qcrd_ray.demo.small_models import MAX_TOKENS, pairs, t5
from qcrd_ray.demo.tokenizer import END, PAD, SPACE, UNKNOWN, framed
from qcrd_ray.demo.training_loop import Batches, Plan, train
from qcrd_ray.tasks.base import EXPLAIN, PREDICT

PLANS = (Plan(steps=700, batch_size=40, warmup=60, dropout=0.05),)
VOCABULARY = 2_500
LAYERS = 3


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte pairs of the words in ``texts``; a slot is one piece, a digit another.

    Everything is in lower case: ASDiv-A has no capitals, and the texts are few.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    space = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    pieces = rf"{SPACE}?(?:[nr]\d{{1,2}}(?!\w)|[^\W\d_]+|\S|\n)"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [space, pre_tokenizers.Split(Regex(pieces), "isolated")]
    )
    letters = sorted({SPACE, "\n", *map(str.lower, map(chr, range(33, 127)))})
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(  # pyright: ignore[reportCallIssue]  # its stub has no parameters
            vocab_size=VOCABULARY,
            special_tokens=[PAD, END, UNKNOWN],
            initial_alphabet=letters,
            show_progress=False,
        ),
    )
    return framed(tokenizer, ends_input=True, max_tokens=MAX_TOKENS)


def make_base(
    examples: Sequence[Example],
    folder: Path,
    *,
    plans: Sequence[Plan] = PLANS,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Train the tokenizer and the base on ``examples`` and save them in ``folder``."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("medium")  # bfloat16 products where the processor has them
    texts = [text for each in examples for text in (each.input, each.label, each.explanation)]
    tokenizer = train_tokenizer([*texts, PREDICT, EXPLAIN])
    model = t5(tokenizer, layers=LAYERS)
    for phase, plan in enumerate(plans):
        train(model, _batches(tokenizer, examples, plan, seed + 1_000 * phase), plan, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batches(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], plan: Plan, seed: int
) -> Batches:
    """Endless batches of both heads, of examples of about the same length."""
    for chosen in _shuffled(examples, plan.batch_size, random.Random(seed)):
        labelled = [each for each in chosen if each.label]
        heads = [(EXPLAIN, chosen, [each.explanation for each in chosen])]
        if labelled:
            heads.append((PREDICT, labelled, [each.label for each in labelled]))
        yield [
            pairs(tokenizer, [prefix + each.input for each in asked], targets)
            for prefix, asked, targets in heads
        ]


def _shuffled(
    examples: Sequence[Example], size: int, shuffle: random.Random
) -> Iterator[list[Example]]:
    while True:
        order = sorted(examples, key=lambda each: (len(each.explanation) // 40, shuffle.random()))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        shuffle.shuffle(batches)
        yield from batches
