"""Test questions that occur in the training split too, and a note about them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from qcrd_ray.data.records import Question

SHOWN_IDS = 5
_MARKS = ".,;:!?\"'()[]{}\u201c\u201d\u2018\u2019"  # no + or -: "3 + 1" is not "3 - 1"


def same_questions(measured: Sequence[Question], training: Iterable[Question]) -> list[str]:
    """Ids of the ``measured`` questions that occur in ``training``.

    Questions are the same if their words and choices are, without regard to capitals, blanks,
    punctuation at the ends of words, the order of choices, and the form of Unicode.
    """
    keys = {_key(question) for question in measured}
    found = keys & {key for question in training if (key := _key(question)) in keys}
    return [question.id for question in measured if _key(question) in found]


def overlap_note(split: str, ids: Sequence[str], *, of: int, training: str = "train") -> str:
    """A note on ``ids``, found by :func:`same_questions` among the ``of`` questions of a split."""
    first = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    return (
        f"{len(ids):,} of the {of:,} questions of {split} stand in {training} too, so what is"
        f" measured on {split} is not new to it: {first}"
    )


def _key(question: Question) -> tuple[str, ...]:
    return (_plain(question.question), *sorted(map(_plain, question.choices)))


def _plain(text: str) -> str:
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(filter(None, (word.strip(_MARKS) for word in words)))
