"""Questions whose answer is a number: SVAMP, GSM8K, and the built-in word problems."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from qcrd_ray.records import Question
from qcrd_ray.tasks.answers import announced, clean, cut_run_on, without
from qcrd_ray.tasks.base import Parsed
from qcrd_ray.tasks.numbers import find_numbers, plain, spell
from qcrd_ray.tasks.prompting import PromptedTask

_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[^a-z\s])|\n+")


@dataclass(frozen=True)
class Arithmetic(PromptedTask):
    """A numeric answer. Numbers are compared as numbers: 32.0, "32 apples" and $32 are all "32"; a percentage is its number."""

    INSTRUCTION: ClassVar[str] = 'Solve the problem. Explain step by step, then give the number. End with "{closing}"'

    def describe_answer(self, question: Question) -> str:
        return "one number"

    def canonical(self, answer: str, question: Question) -> str | None:
        """The number in ``answer``: what follows ``####`` or the last ``=``, if that holds exactly one number."""
        said = plain(answer).rsplit("####", 1)[-1].rsplit("=", 1)[-1]
        numbers = find_numbers(said)
        return spell(numbers[0][2]) if len(numbers) == 1 else None

    def parse(self, text: str, question: Question) -> Parsed:
        """The announced number, else the number that the last sentence with one concludes on."""
        kept = plain(cut_run_on(text, question.question))
        if not kept:
            return Parsed(reason="the completion is empty")
        for said in announced(kept, self.recipe.closing):
            if (value := _result(said.text)) is not None:
                return Parsed(rationale=without(kept, said), answer=spell(value))
        for sentence in reversed(_SENTENCE_END.split(kept)):
            if (value := _conclusion(sentence, question)) is not None:
                return Parsed(rationale=clean(kept), answer=spell(value))
        return Parsed(rationale=clean(kept), reason="no number in the completion")


def _result(said: str) -> Fraction | None:
    """The number of an announced answer: behind its last ``=``, else its first."""
    numbers = find_numbers(_SENTENCE_END.split(said, maxsplit=1)[0])
    equals = said.rfind("=")
    return next((v for start, _, v in numbers if start > equals), numbers[0][2] if numbers else None)


def _conclusion(sentence: str, question: Question) -> Fraction | None:
    """The number that a concluding sentence ends in: behind its last ``=``, else its last."""
    numbers = find_numbers(sentence)
    equals = sentence.rfind("=")
    return next((v for start, _, v in numbers if start > equals >= 0), numbers[-1][2] if numbers else None)
