"""What a reader of a run's numbers must know of its data: test questions that were trained on, and texts that were cut.

Counted where the data are read, and told in the log, by the doctor, at the end of a run, in the report, in the student's card and in a
comparison's table.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qcrd_ray.recipe import StudentRecipe
from qcrd_ray.records import Question

SHOWN_IDS = 5
_MARKS = ".,;:!?\"'()[]{}\u201c\u201d\u2018\u2019"  # no + or -: "3 + 1" is not "3 - 1"


def same_questions(measured: Sequence[Question], training: Iterable[Question]) -> list[str]:
    """Ids of the ``measured`` questions that occur in ``training``: the same words and choices, whatever the capitals, blanks, marks at
    the ends of words, order of choices, and form of Unicode."""
    keys = {_key(question) for question in measured}
    found = keys & {key for question in training if (key := _key(question)) in keys}
    return [question.id for question in measured if _key(question) in found]


def overlap_note(split: str, ids: Sequence[str], *, of: int, training: str = "train") -> str:
    """What to say of ``ids`` that :func:`same_questions` found among the ``of`` questions of ``split``."""
    first = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    return (
        f"{len(ids):,} of the {of:,} questions of {split} stand in {training} too, so what is measured on {split} is not new to it: {first}"
    )


def truncation_counts(manifest: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(cut, all) of the inputs and of the targets, from a training set's manifest. All methods read the same file, and what any of them
    reads counts: a question is two inputs, one for each head; a rationale is one target, however many methods learn it."""
    manifest = {"others": 0, "truncated_others": 0, **manifest}  # one of an older version has no such counts
    targets = {"labels": "labelled", "positives": "positives", "negatives": "negatives", "others": "others"}
    return {
        "inputs": (manifest["truncated_inputs"], 2 * manifest["questions"]),
        "targets": (sum(manifest[f"truncated_{name}"] for name in targets), sum(manifest[name] for name in targets.values())),
    }


def truncation_note(manifest: Mapping[str, Any], student: StudentRecipe) -> str:
    """What was cut, by which key; "" where nothing was."""
    limits = {"inputs": ("max_input_tokens", student.max_input_tokens), "targets": ("max_target_tokens", student.max_target_tokens)}
    told = [
        f"{cut:,} of {total:,} {name} of the training set were cut at student.{limits[name][0]} ({limits[name][1]:,})"
        for name, (cut, total) in truncation_counts(manifest).items()
        if cut
    ]
    return "; ".join(told)


def _key(question: Question) -> tuple[str, ...]:
    return (_plain(question.question), *sorted(map(_plain, question.choices)))


def _plain(text: str) -> str:
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(filter(None, (word.strip(_MARKS) for word in words)))
