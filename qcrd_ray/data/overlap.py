"""Test questions that occur in the training split too, and a note about them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence, Set

from qcrd_ray.data.records import Question

SHOWN_IDS = 5
_MARKS = ".,;:!?\"'()[]{}\u201c\u201d\u2018\u2019"  # no + or -: "3 + 1" is not "3 - 1"


def same_questions(measured: Sequence[Question], training: Iterable[Question]) -> list[str]:
    """Ids of the ``measured`` questions that occur in ``training``.

    Questions are the same if their words and choices are, without regard to capitals, blanks,
    punctuation at the ends of words, the order of choices, and the form of Unicode.
    """
    found = keys_among({key_of(question) for question in measured}, training)
    return [question.id for question in measured if key_of(question) in found]


def keys_among(keys: Set[str], questions: Iterable[Question]) -> set[str]:
    """Those of ``keys`` that a question has; only they are held."""
    return {key for question in questions if (key := key_of(question)) in keys}


def key_of(question: Question) -> str:
    """A hash that two questions share if they are the same, as :func:`same_questions` means it."""
    plain = (_plain(question.question), *sorted(map(_plain, question.choices)))
    text = "\0".join(plain).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def overlap_note(split: str, ids: Sequence[str], *, of: int, training: str = "train") -> str:
    """A note on ``ids``, found by :func:`same_questions` among the ``of`` questions of a split."""
    first = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    return (
        f"{len(ids):,} of the {of:,} questions of {split} stand in {training} too, so what is"
        f" measured on {split} is not new to it: {first}"
    )


def _plain(text: str) -> str:
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(filter(None, (word.strip(_MARKS) for word in words)))
