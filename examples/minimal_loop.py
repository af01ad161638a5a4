"""The paper in one process: QCRD with `qcrd_ray.method`, torch and transformers, and nothing else.

    .venv/bin/python examples/minimal_loop.py               # less than a minute on one CPU
    .venv/bin/python examples/minimal_loop.py --rounds 2    # a look at what it prints

The questions are sums of two small numbers. A made-up teacher answers each of them five times and
is wrong in 30 % of its samples. A round does what section 2b of qcrd_ray/method/METHOD.md says; on
a cluster `qcrd_ray/training/worker.py` does it. Read :func:`main` first.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import T5Config, T5ForConditionalGeneration

from qcrd_ray.method.batching import global_batch, keyed_seed
from qcrd_ray.method.collation import collate, pad_rows
from qcrd_ray.method.discriminator import (
    Contrast,
    Discriminator,
    DiscriminatorStep,
    collate_contrasts,
)
from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.method.negatives import merge_rationales, snapshot_for
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.ranking import within_question_auc
from qcrd_ray.method.self_consistency import count_votes
from qcrd_ray.method.student import StudentStep, evaluating
from qcrd_ray.method.weights import assign_weights

SEED, SAMPLES, QUESTIONS, BATCH, STEPS_PER_ROUND, LAG = 0, 5, 96, 16, 12, 2
NAMES, THINGS = ("Ann", "Ben", "Cleo", "Dan"), ("pens", "cups", "nuts", "figs")
WORDS = ("predict:", "explain:", "has", "and", "buys", ".", "so", "the", "answer", "is", "+", "=")
NUMBERS = [str(number) for number in range(13)]
VOCABULARY = ["<pad>", "</s>", *WORDS, *NAMES, *THINGS, *NUMBERS]
PAD, EOS = 0, 1
IDS = {word: i for i, word in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class Question:
    """A question, its gold answer, and the teacher's samples: (rationale, answer)."""

    text: str
    gold: str
    samples: tuple[tuple[str, str], ...]


def make_questions(count: int, seed: int) -> list[Question]:
    """Sums, with the samples of a teacher that miscounts 30 % of the time."""
    draw, questions = random.Random(seed), []
    for _ in range(count):
        a, b = draw.randint(1, 6), draw.randint(1, 6)
        slips = [draw.choice([-2, -1, 1]) if draw.random() < 0.3 else 0 for _ in range(SAMPLES)]
        answers = [str(min(12, max(0, a + b + slip))) for slip in slips]
        samples = tuple((f"{a} + {b} = {n} . so the answer is {n}", n) for n in answers)
        text = f"{draw.choice(NAMES)} has {a} {draw.choice(THINGS)} and buys {b}"
        questions.append(Question(text, str(a + b), samples))
    return questions


def encode(text: str) -> tuple[int, ...]:
    """Token ids, one a word, closed with EOS."""
    return (*(IDS[word] for word in text.split()), EOS)


def vote(question: Question) -> tuple[list[str], list[str]]:
    """Self-consistency: (positives, the minority). A tie is no consensus: neither."""
    leaders = count_votes(answer for _, answer in question.samples).leaders
    if len(leaders) > 1:
        return [], []
    agreeing = [rationale for rationale, answer in question.samples if answer in leaders]
    return agreeing, [rationale for rationale, answer in question.samples if answer not in leaders]


@torch.no_grad()
def write(student: T5ForConditionalGeneration, prompts: list[str], temperature: float) -> list[str]:
    """One text for each prompt: greedy at temperature 0, else sampled."""
    tokens, mask = pad_rows([encode(prompt) for prompt in prompts], PAD)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    with evaluating(student):
        rows = student.generate(  # pyright: ignore[reportAttributeAccessIssue] (its mixin's protocol)
            tokens, attention_mask=mask, max_new_tokens=12, **sampling
        )
    return [" ".join(VOCABULARY[i] for i in row if i not in (PAD, EOS)) for row in rows.tolist()]


def accuracy(student: T5ForConditionalGeneration, questions: list[Question], prefix: str) -> float:
    """The share of questions whose text ends in the gold answer."""
    texts = write(student, [f"{prefix} {question.text}" for question in questions], 0.0)
    right = [text.split()[-1:] == [q.gold] for text, q in zip(texts, questions, strict=True)]
    return sum(right) / len(right)


def make_example(question: Question, written: str) -> Example:
    """One question as the student's step reads it; ``written`` is the older student's text."""
    positives, minority = ([Rationale(tokens=encode(t)) for t in side] for side in vote(question))
    own = [Rationale(tokens=encode(written), source=Source.STUDENT)] if written else []
    positives, negatives = merge_rationales(positives, [*minority, *own])  # each text once
    return Example(
        predict=encode(f"predict: {question.text}"),
        explain=encode(f"explain: {question.text}"),
        label=encode(question.gold),
        positives=positives,
        negatives=negatives,
    )


def contrast_of(example: Example) -> Contrast:
    """What the discriminator reads: question, EOS, rationale, EOS; the prefix left out."""
    question = example.explain[1:]
    return Contrast(
        positives=tuple((*question, *rationale.tokens) for rationale in example.positives),
        negatives=tuple((*question, *rationale.tokens) for rationale in example.negatives),
    )


def score(discriminator: Discriminator, examples: Sequence[Example]) -> list[Example]:
    """Equation (1): the examples with s on each of their rationales."""
    contrasts = [contrast_of(example) for example in examples]
    texts = [text for each in contrasts for text in (*each.positives, *each.negatives)]
    scores = iter(discriminator.score(texts))

    def scored(side: tuple[Rationale, ...]) -> tuple[Rationale, ...]:
        return tuple(replace(rationale, score=next(scores)) for rationale in side)

    return [
        replace(each, positives=scored(each.positives), negatives=scored(each.negatives))
        for each in examples
    ]


def batch_of(examples: Sequence[Example], seed: int, step: int) -> list[Example]:
    """The examples of a step: a pure function of (seed, step)."""
    chosen = global_batch(seed=seed, step=step, questions=len(examples), batch_size=BATCH)
    return [examples[i] for i in chosen]


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One optimizer step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main(rounds: int = 8) -> list[dict[str, float]]:
    """Train, print a line a round, and return the numbers of all lines."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the models are too small for more
    questions, test = make_questions(QUESTIONS, seed=1), make_questions(64, seed=2)
    config = T5Config(vocab_size=len(VOCABULARY), d_model=64, d_kv=16, d_ff=128, num_layers=2)
    config.num_heads, config.dropout_rate, config.decoder_start_token_id = 4, 0.0, PAD
    student = T5ForConditionalGeneration(config)
    discriminator = Discriminator.from_model(copy.deepcopy(student), hidden=32)

    objective = build_objective(ObjectiveConfig(name="qcrd"))  # equations (3), (6), (7), (8)
    step = StudentStep(student, objective)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    d_step = DiscriminatorStep(discriminator)  # equation (2)
    d_optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-3)
    d_decay = torch.optim.lr_scheduler.ExponentialLR(d_optimizer, gamma=0.9)  # alpha3 of (8)

    snapshots, rows = {0: copy.deepcopy(student)}, []
    for round in range(rounds):
        # 1. The student of LAG rounds ago writes a negative for each question, at temperature 1.5.
        older = snapshot_for(round, lag=LAG)
        assert older is not None  # before round LAG it is the start
        texts = write(
            snapshots[older], [f"explain: {question.text}" for question in questions], 1.5
        )
        examples = [make_example(*each) for each in zip(questions, texts, strict=True)]
        # 2. The discriminator's steps. Before the first round there are more: its pretraining.
        for number in range(10 if round else 30):
            batch = batch_of(examples, keyed_seed(SEED, "discriminator", round), number)
            contrasts = [contrast_of(example) for example in batch]
            two_sided = sum(contrast.two_sided for contrast in contrasts)
            descend(d_optimizer, d_step(collate_contrasts(contrasts, pad=PAD), two_sided).loss)
        d_decay.step()
        # 3. All rationales are scored once and weighted: s on positives, 1 - s on negatives.
        scored = score(discriminator, examples)
        weighted = list(assign_weights(dict(enumerate(scored)), weights="score").values())
        # 4. The student's steps. Counts over the whole batch divide the loss.
        sums = torch.zeros(len(objective.sums))
        for number in range(round * STEPS_PER_ROUND, (round + 1) * STEPS_PER_ROUND):
            batch = batch_of(weighted, SEED, number)
            output = step(collate(batch, objective, pad=PAD), total_counts(objective, batch))
            descend(optimizer, output.loss)
            sums += output.sums
        # 5. The next snapshot, and the numbers of the round.
        snapshots[round + 1] = copy.deepcopy(student)
        means = objective.metrics(sums)
        positive = [[rationale.score or 0.0 for rationale in e.positives] for e in scored]
        negative = [[rationale.score or 0.0 for rationale in e.negatives] for e in scored]
        rows.append(
            {
                "loss": means["loss"],
                "positive": means["positive_nll"],
                "negative": means["negative_nll"],
                "active": means["active_fraction"],
                "D's AUC": within_question_auc(positive, negative) or 0.5,
                "label": accuracy(student, test, "predict:"),
                "rationale": accuracy(student, test, "explain:"),
            }
        )
        print(f"round {round}:", ", ".join(f"{name} {v:.2f}" for name, v in rows[-1].items()))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    main(parser.parse_args().rounds)
