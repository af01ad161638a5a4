"""What a question about numbers gives, and what it asks for: a text may state more than one number,
and this says which of them is the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from qcrd_ray.tasks.numbers import DecimalMark, plain, spot_numbers

SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[^a-z\s])|\n+")
WORD = re.compile(r"[a-z]+")
_QUESTION = re.compile(r"\b(?:how|what|which)\b.*", re.DOTALL)
_COMPARED = re.compile(r"how (?:many|much) (more|fewer|less)\b")
_COUNTED = re.compile(r"how many ([a-z]+)")
_PLURAL = re.compile(r"(?!times\b)[a-z]{3,}s")
_ANYTHING = {"items", "things", "objects"}  # names for several kinds counted together
_TOGETHER = re.compile(
    r"how many(?: (?!(?:did|do|does|are|were|can|could|will|would|have|has|had)\b)[a-z]+){1,4} and "
)

Given = frozenset[Fraction | str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question gives and what it asks for.

    Attributes:
        given: its numbers, and the words of those that cannot be read for sure.
        words: those of its last sentence from "how" or "what" on.
        compared: "more", "fewer" or "less", if it asks how many more; else "".
        counted: what it asks the number of, without a plural's s; else "".
        others: further plurals that it names, and words for anything. What counts these answers
            something else; a word that the question does not name may mean the same.
        together: whether it asks for two things together.
    """

    given: Given
    words: frozenset[str]
    compared: str
    counted: str
    others: frozenset[str]
    together: bool


@lru_cache(maxsize=1024)  # the K samples of a question are read one after the other
def read_asked(question: str, decimal: DecimalMark) -> Asked:
    """What ``question`` gives and asks for."""
    text = plain(question)
    given = frozenset(
        text[start:end] if value is None else value
        for start, end, value in spot_numbers(text, decimal)
    )
    last = SENTENCE_END.split(question.strip())[-1].lower()
    found = _QUESTION.search(last)
    asked = found[0] if found else last
    words = frozenset(WORD.findall(asked))
    compared, counted = _COMPARED.search(asked), _COUNTED.search(asked)
    if compared or not counted:
        return Asked(given, words, compared[1] if compared else "", "", frozenset(), False)
    thing = counted[1].removesuffix("s")
    together = _TOGETHER.search(asked) is not None
    others = frozenset(filter(_PLURAL.fullmatch, WORD.findall(question.lower())))
    if not together:
        others |= _ANYTHING
    return Asked(given, words, "", thing, others - words - {f"{thing}s"}, together)
