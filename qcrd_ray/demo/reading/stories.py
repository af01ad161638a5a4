"""Recorded SVAMP, cut into splits that share no story.

SVAMP's questions are variations of about a hundred stories: other numbers, another order, another
thing asked. In a random split nine of ten test questions have a near twin in training, and a
student can answer by the story. So a story goes to one split as a whole. Questions are one story
if most of their words are the same, directly or by way of others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray.demo.recorded import read_rows, write_rows
from qcrd_ray.errors import UserError

# how many questions a split has at least; the rest is for training
AT_LEAST = {"test": 200, "validation": 100}
SAME_STORY = 0.5  # the least share of common words, of all words of two questions
COMPLETIONS = "teacher.jsonl"


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of each split, and how many stories there are in all."""

    rows: dict[str, list[dict]]
    stories: int


def stories_of(questions: Sequence[str]) -> list[int]:
    """The story of each question: the place of the story's first question."""
    words = [frozenset(re.findall(r"[a-z]+", question.lower())) for question in questions]
    story = list(range(len(questions)))
    for place, mine in enumerate(words):
        for before in range(place):
            other = words[before]
            if story[place] != story[before] and (
                len(mine & other) >= SAME_STORY * len(mine | other)
            ):
                old, new = sorted((story[place], story[before]), reverse=True)
                story = [new if each == old else each for each in story]
    return story


def split(rows: Sequence[dict], *, seed: int) -> Split:
    """Deal whole stories out to `test`, then `validation`, then `train`, in an order by the seed.

    Raises:
        UserError: no story is left for training.
    """
    story = stories_of([row["question"] for row in rows])
    names = sorted(set(story))
    random.Random(f"stories {seed}").shuffle(names)
    left = iter(names)
    dealt: dict[str, list[dict]] = {}
    for label, count in AT_LEAST.items():
        chosen: set[int] = set()
        while sum(each in chosen for each in story) < count:
            if (name := next(left, None)) is None:
                break
            chosen.add(name)
        dealt[label] = [row for row, each in zip(rows, story, strict=True) if each in chosen]
    rest = set(left)
    dealt["train"] = [row for row, each in zip(rows, story, strict=True) if each in rest]
    if not dealt["train"]:
        raise UserError(
            f"{len(rows)} questions on {len(names)} stories leave none to train on; give a file"
            " with more questions"
        )
    return Split(dealt, len(names))


def write_splits(data: Path, out: Path, *, seed: int) -> Split:
    """Write train, validation, test and the completions of the first, each .jsonl, to ``out``.

    Args:
        data: the folder with train.jsonl (id, question, answer) and teacher.jsonl (id, completion).

    Raises:
        UserError: a file or a field is missing, or the questions are too few.
    """
    made = split(list(read_rows(data / "train.jsonl", "id", "question", "answer")), seed=seed)
    trained_on = {row["id"] for row in made.rows["train"]}
    said = [
        row for row in read_rows(data / COMPLETIONS, "id", "completion") if row["id"] in trained_on
    ]
    out.mkdir(parents=True, exist_ok=True)
    for label, rows in (*made.rows.items(), ("teacher", said)):
        write_rows(out / f"{label}.jsonl", rows)
    return made
