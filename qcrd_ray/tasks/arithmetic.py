"""Questions whose answer is a number: SVAMP, GSM8K, and the built-in word problems."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.answers import (
    announcement_pattern,
    clean,
    cut_run_on,
    find_announcements,
    rationale_without,
)
from qcrd_ray.tasks.base import Parsed
from qcrd_ray.tasks.numbers import find_number_words, find_numbers, plain, spell
from qcrd_ray.tasks.prompting import PromptedTask

_ANNOUNCED = announcement_pattern("answer")
_EQUALS = re.compile(r"=|\bequals?\b(?: to)?")
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[^a-z\s])|\n+")


@dataclass(frozen=True)
class Arithmetic(PromptedTask):
    """A numeric answer.

    Numbers are compared as numbers: 32.0, "32 apples" and $32 are all "32"; a percentage is its
    number.
    """

    INSTRUCTION: ClassVar[str] = (
        'Solve the problem. Explain step by step, then give the number. End with "{closing}"'
    )

    def describe_answer(self, question: Question) -> str:
        return "one number"

    def canonical(self, answer: str, question: Question) -> str | None:
        """The number in ``answer``.

        It is what follows ``####`` or the last ``=``, if that holds exactly one number.
        """
        said = plain(answer).rsplit("####", 1)[-1].rsplit("=", 1)[-1]
        numbers = [value for _, _, value in find_numbers(said)] or find_number_words(said)
        return spell(numbers[0]) if len(numbers) == 1 else None

    def parse(self, text: str, question: Question) -> Parsed:
        """The announced number, else the one that the last sentence with a number states.

        The rationale comes back without LaTeX.
        """
        kept = plain(cut_run_on(text, question.question))
        if not kept:
            return Parsed(reason="the completion is empty")
        given = _given(question.question)
        for announcement in find_announcements(kept, self.recipe.closing, _ANNOUNCED):
            sentence = _SENTENCE_END.split(announcement.text, maxsplit=1)[0]
            value = _stated(sentence, given)
            if value is None and (words := find_number_words(sentence)):
                value = words[0]
            if value is not None:
                return Parsed(rationale=rationale_without(kept, announcement), answer=spell(value))
        for sentence in reversed(_SENTENCE_END.split(kept)):
            if (value := _stated(sentence, given)) is not None:
                return Parsed(rationale=clean(kept), answer=spell(value))
        return Parsed(rationale=clean(kept), reason="no number in the completion")


@lru_cache(maxsize=1024)  # the K samples of a question are read one after the other
def _given(question: str) -> frozenset[Fraction]:
    """The numbers of a question."""
    return frozenset(value for _, _, value in find_numbers(plain(question)))


def _stated(sentence: str, given: frozenset[Fraction]) -> Fraction | None:
    """The number that a sentence states as its result.

    That is what follows its last ``=`` or "equals". Without one it is the first number that the
    question did not give ("so 26 rounds were played to score 78 points"), as most answers are
    computed; where the question gave them all, the first.
    """
    numbers = find_numbers(sentence)
    equals = [match.end() for match in _EQUALS.finditer(sentence)]
    if equals and (after := [value for start, _, value in numbers if start >= equals[-1]]):
        return after[0]
    new = [value for _, _, value in numbers if value not in given]
    return (new or [value for _, _, value in numbers] or [None])[0]
