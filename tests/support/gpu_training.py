"""QCRD in one process on the demo's student, with the method alone: no recipe, no run folder.

What examples/minimal_loop.py does, on a device, with the package's own sampling and loading. The
teacher is made up: three right rationales a question, two of them with a wrong last number.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer

from qcrd_ray.inference.base import EngineOptions
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.method.batching import global_batch, keyed_seed
from qcrd_ray.method.collation import collate
from qcrd_ray.method.discriminator import (
    Contrast,
    Discriminator,
    DiscriminatorStep,
    collate_contrasts,
)
from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.method.negatives import merge_rationales
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.student import StudentStep, load_student
from qcrd_ray.method.tokenization import pad_id, tokenize, tokenize_pairs
from qcrd_ray.method.weights import assign_weights
from qcrd_ray.models.names import demo_model

NEW_TOKENS, D_STEPS = 64, 5


def train_demo_student(
    device: torch.device, *, questions: int, rounds: int, steps: int, batch: int, validation: int
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The student's last weights, and its validation accuracies: of the base and after each round.

    A pure function of its arguments.
    """
    from qcrd_ray.tasks.word_problems import generate  # needs pydantic

    torch.manual_seed(0)
    folder = demo_model("student")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pad, asked = pad_id(tokenizer), generate(questions, seed=1)
    tested = generate(validation, seed=2)
    objective = build_objective(ObjectiveConfig())
    step = StudentStep(load_student(folder, dropout=0.0), objective).to(device).train()
    d_step = DiscriminatorStep(Discriminator.from_pretrained(folder, hidden=64)).to(device).train()
    optimizer = torch.optim.AdamW(step.parameters(), lr=5e-4)
    d_optimizer = torch.optim.AdamW(d_step.parameters(), lr=2e-4)
    engine = TransformersEngine(folder, EngineOptions(device=device, batch_size=512))

    def accuracy() -> float:
        prompts = [f"explain: {each.question}" for each in tested]
        texts = engine.generate(prompts, max_tokens=NEW_TOKENS)
        right = [
            last_number(text[0].text) == q.answer for text, q in zip(texts, tested, strict=True)
        ]
        return sum(right) / len(right)

    accuracies = [accuracy()]
    for round in range(rounds):
        sampled = engine.generate(
            [f"explain: {each.question}" for each in asked],
            temperature=1.5,
            max_tokens=NEW_TOKENS,
            seed=keyed_seed(0, "negatives", round),
        )
        pairs, examples = [], []
        for each, own in zip(asked, sampled, strict=True):
            sides = rationales(each, own[0].text, tokenizer)
            examples.append(example(each, sides, tokenizer))
            pairs.append(contrast(each, sides, tokenizer))
        for number in range(D_STEPS):
            chosen = global_batch(seed=round, step=number, questions=questions, batch_size=batch)
            contrasts = [pairs[i] for i in chosen]
            two_sided = sum(each.two_sided for each in contrasts)
            inputs = collate_contrasts(contrasts, pad=pad).to(device)
            descend(d_optimizer, d_step(inputs, two_sided).loss)
        weighted = assign_weights(
            dict(enumerate(scored(examples, pairs, d_step.discriminator))), weights="score"
        )
        for number in range(round * steps, (round + 1) * steps):
            chosen = global_batch(seed=0, step=number, questions=questions, batch_size=batch)
            members = [weighted[i] for i in chosen]
            inputs = collate(members, objective, pad=pad).to(device)
            descend(optimizer, step(inputs, total_counts(objective, members)).loss)
        with tempfile.TemporaryDirectory() as snapshot:
            step.student.save_pretrained(snapshot)
            engine.load_weights(Path(snapshot))
        accuracies.append(accuracy())
    weights = {name: tensor.cpu() for name, tensor in step.student.state_dict().items()}
    return weights, accuracies


def rationales(question, own: str, tokenizer) -> tuple[list[str], list[str]]:
    """The made-up teacher's right and wrong texts; the student's ``own`` is a negative."""
    right = f"{question.rationale} So the answer is {question.answer}."
    wrong = f"{question.rationale} So the answer is {int(question.answer) + 1}."
    return [right, right, f"Well: {right}"], [wrong, *([own] if own else [])]


def example(question, sides: tuple[list[str], list[str]], tokenizer) -> Example:
    def tokens(text: str):
        return tokenize(tokenizer, [text], max_tokens=128).rows[0]

    positives, negatives = merge_rationales(
        *(
            [Rationale(tokens=tokens(text), source=Source.TEACHER) for text in side]
            for side in sides
        )
    )
    return Example(
        predict=tokens(f"predict: {question.question}"),
        explain=tokens(f"explain: {question.question}"),
        label=tokens(question.answer),
        positives=positives,
        negatives=negatives,
    )


def contrast(question, sides: tuple[list[str], list[str]], tokenizer) -> Contrast:
    """The pairs of each different text, in the order of :func:`example`."""
    positives, negatives = (
        tuple(
            tokenize_pairs(tokenizer, [question.question] * len(texts), texts, max_tokens=192).rows
        )
        for texts in (list(dict.fromkeys(side)) for side in sides)
    )
    return Contrast(positives=positives, negatives=negatives)


def scored(
    examples: list[Example], pairs: list[Contrast], discriminator: Discriminator
) -> list[Example]:
    """The examples with D's scores on their rationales."""
    flat = [pair for each in pairs for pair in (*each.positives, *each.negatives)]
    scores = iter(discriminator.score(flat))
    found = []
    for each, its in zip(examples, pairs, strict=True):
        sides = []
        for texts, members in ((its.positives, each.positives), (its.negatives, each.negatives)):
            values = [next(scores) for _ in texts]
            # two texts may have the same tokens, which count once
            sides.append(tuple(replace(m, score=s) for m, s in zip(members, values, strict=False)))
        found.append(replace(each, positives=sides[0], negatives=sides[1]))
    return found


def last_number(text: str) -> str | None:
    """What a text ends in."""
    numbers = re.findall(r"\d+", text)
    return numbers[-1] if numbers else None


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One optimizer step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
