"""Questions on the last letters of names: recorded ones to train on, composed ones to test on.

Recorded questions are few, and each is about names of its own. So the names of some of them are
kept out of training, and any number of questions is composed from these, in the same words, with
the answer by construction. Validation and test take different names.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray.data.records import Question
from qcrd_ray.demo.recorded import read_rows, write_rows
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task

WORDING = 'Take the last letters of each words in "{names}" and concatenate them.'  # as recorded
CLOSING = "The answer is {answer}."  # as the recorded completions say it
WORDS = 4
QUESTIONS, COMPLETIONS = "train.jsonl", "teacher.jsonl"  # of the data's folder, and of ours
# file: which half of the names kept out, how many questions
COMPOSED = {"validation": (0, 600), "tune_test": (0, 2_000), "test": (1, 3_000)}


def last_letters_task() -> Task:
    """Short text, whose explanations close as the recorded ones do."""
    return build_task(TaskRecipe(kind="short_text", instruction="", closing=CLOSING))


def ask(names: Sequence[str], id: str) -> Question:
    """The question on ``names``, with its answer and the steps that lead to it."""
    answer = "".join(name[-1] for name in names)
    steps = " ".join(f"The last letter of '{name}' is '{name[-1]}'." for name in names)
    return Question(
        id=id,
        question=WORDING.format(names=" ".join(names)),
        answer=answer,
        rationale=f"{steps} Concatenating them is '{answer}'.",
    )


def names_of(question: str) -> list[str]:
    """The names that a question asks about; [] for a question in other words."""
    before, after = map(re.escape, WORDING.split("{names}"))
    match = re.fullmatch(f"{before}(.+){after}", question)
    return match[1].split() if match else []


@dataclass(frozen=True, slots=True)
class Split:
    """Recorded rows to train on, and the names that none of them holds, in two halves."""

    train: list[dict]
    kept_out: tuple[list[str], list[str]]
    left_out: int  # questions of another number of words; see :func:`split`

    @property
    def names(self) -> frozenset[str]:
        """All names that are asked about, in lower case."""
        trained_on = (name for row in self.train for name in names_of(row["question"]))
        return frozenset(
            name.lower() for name in (*trained_on, *self.kept_out[0], *self.kept_out[1])
        )


def split(rows: Sequence[dict], *, held: int, seed: int) -> Split:
    """Keep the names of ``held`` questions out of training.

    A name that occurs in a question to train on, in whatever case, is not kept out. Questions of
    more than four words are left out: their recorded answers take two of the words for one name
    ("Jose Luis"), which the wording does not say.
    """
    usable = [row for row in rows if len(names_of(row["question"])) == WORDS]
    if len(usable) <= held:
        raise UserError(
            f"{QUESTIONS}: {len(usable)} questions are about {WORDS} names, and {held} of these are"
            " to be kept out of training; give a file with more questions"
        )
    away = set(random.Random(f"kept out {seed}").sample(range(len(usable)), held))
    train = [row for place, row in enumerate(usable) if place not in away]
    known = {name.lower() for row in train for name in names_of(row["question"])}
    names = {
        name.lower(): name
        for place in sorted(away)
        for name in names_of(usable[place]["question"])
        if name.lower() not in known
    }
    shuffled = random.Random(f"halves {seed}").sample(sorted(names.values()), len(names))
    middle = len(shuffled) // 2
    return Split(train, (shuffled[:middle], shuffled[middle:]), len(rows) - len(usable))


def compose(names: Sequence[str], count: int, *, label: str, seed: int) -> list[Question]:
    """``count`` different questions on four different ones of ``names``.

    Raises:
        UserError: there are not so many questions.
    """
    if math.perm(len(names), WORDS) < 2 * count:
        raise UserError(f"{len(names)} names are too few for {count} questions")
    draw = random.Random(f"{label} {seed}")
    chosen: dict[tuple[str, ...], None] = {}
    while len(chosen) < count:
        chosen[tuple(draw.sample(names, WORDS))] = None
    return [ask(each, f"last_letters-{label}-{i:05d}") for i, each in enumerate(chosen)]


def write_splits(data: Path, out: Path, *, held: int, seed: int) -> Split:
    """Write the files of questions and the recorded completions to ``out``.

    Args:
        data: the folder with the recorded questions and completions.
        out: gets train, teacher, validation, tune_test and test, each .jsonl.
        held: how many questions' names are kept out of training.

    Raises:
        UserError: a file is missing, or a row has no question and answer of this task.
    """
    recorded = split(
        list(read_rows(data / QUESTIONS, "id", "question", "answer")), held=held, seed=seed
    )
    trained_on = {row["id"] for row in recorded.train}
    completions = [
        row for row in read_rows(data / COMPLETIONS, "id", "completion") if row["id"] in trained_on
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / QUESTIONS, recorded.train)
    write_rows(out / COMPLETIONS, completions)
    asked: set[str] = set()  # tune_test holds no question of validation, which has the same names
    for label, (half, count) in COMPOSED.items():
        composed = compose(recorded.kept_out[half], count + len(asked), label=label, seed=seed)
        new = [each for each in composed if each.question not in asked][:count]
        asked |= {each.question for each in new}
        write_rows(
            out / f"{label}.jsonl",
            [{"id": q.id, "question": q.question, "answer": q.answer} for q in new],
        )
    return recorded
