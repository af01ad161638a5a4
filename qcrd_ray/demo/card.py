"""What the demo's models can do, measured, and the cards that say so."""

from __future__ import annotations

from pathlib import Path

from qcrd_ray.demo.check import student_accuracy, teacher_accuracy
from qcrd_ray.tasks import word_problems

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

Trained from scratch (seed {seed}) on synthetic stories of `qcrd_ray/tasks/word_problems.py`, kind `pretraining`, which no seed of the
other kinds can reach: no training, validation or test question of any recipe was seen, nor a renamed one. The pairs of operations held out
there were not seen either. It knows {vocabulary}, and nothing else of the world.

| measured on {questions} questions a row | share right |
|---|---|
{table}

Measure again: `python jobs/make_demo_models.py --check`. Make again: `python jobs/make_demo_models.py`. Licence: Apache-2.0.
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
    """Per model, what share of the questions it gets right, by row name."""
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
