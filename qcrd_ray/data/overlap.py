"""Test questions that occur in the training split too, and a note about them."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where no type checker sees them.
from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qcrd_ray.data.records import Question

SHOWN_IDS = 5
KEY = pa.field("key", pa.binary(16))  # :func:`key_of`, in files of questions
_MARKS = ".,;:!?\"'()[]{}\u201c\u201d\u2018\u2019"  # no + or -: "3 + 1" is not "3 - 1"


def same_questions(measured: Sequence[Question], training: Iterable[Question]) -> list[str]:
    """Ids of the ``measured`` questions that occur in ``training``.

    Questions are the same if their words and choices are, without regard to capitals, blanks,
    punctuation at the ends of words, the order of choices, and the form of Unicode.
    """
    keys = [key_of(question) for question in measured]
    known = set(keys)
    found = {key for question in training if (key := key_of(question)) in known}
    return [question.id for question, key in zip(measured, keys, strict=True) if key in found]


def same_in_files(measured: Path, training: Path) -> list[str]:
    """:func:`same_questions` of two files of questions, which hold each question's KEY.

    Held are 16 bytes for each question of ``measured``.
    """
    with pq.ParquetFile(measured) as file:
        asked = file.read(columns=[KEY.name])[KEY.name].combine_chunks()
    with pq.ParquetFile(training) as file:
        found = [
            keys.filter(pc.is_in(keys, asked))
            for batch in file.iter_batches(columns=[KEY.name])
            for keys in [batch[KEY.name]]
        ]
    same = pc.is_in(asked, pa.chunked_array(found, KEY.type).combine_chunks())
    if not pc.any(same).as_py():
        return []
    return pq.read_table(measured, columns=["id"])["id"].filter(same).to_pylist()


def key_of(question: Question) -> bytes:
    """A hash that two questions share if they are the same, as :func:`same_questions` means it."""
    plain = (_plain(question.question), *sorted(map(_plain, question.choices)))
    text = "\0".join(plain).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=KEY.type.byte_width).digest()


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
