"""Arithmetic inside a rationale, read step by step: "5 - 2 = 3", "12 pens - 3 pens - 2 pens = 7 pens". Nothing is evaluated but numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_OPERATION = r"[-–−+*/x×÷]"
_TERM = rf"{NUMBER}(?:\s+[A-Za-z][A-Za-z'/-]*){{0,5}}?(?:\s*\([A-Za-z' -]*\))?"  # a number, and what it counts
STEP = re.compile(
    rf"(?<![\w.,])(?P<left>{_TERM}(?:\s*{_OPERATION}\s*\$?{_TERM}){{1,8}})\s*=\s*(?P<sign>-?)\$?(?P<result>{NUMBER})(?![\w]|\.[0-9])"
)
_OPERAND = re.compile(rf"(?:({_OPERATION})\s*)?\$?({NUMBER})")
_TOLERANCE = Fraction(1, 100)  # people round to cents


class Steps(NamedTuple):
    """How many steps a text has, and how many of them are right."""

    right: int
    total: int


def check_steps(text: str) -> Steps:
    """Check every step in ``text``: a chain of + - * x / and their signs with its result. Other forms are not counted at all."""
    steps = list(STEP.finditer(text))
    return Steps(sum(map(is_right, steps)), len(steps))


def is_right(step: re.Match[str]) -> bool:
    """Whether a match of :data:`STEP` gives the result of its chain, to a cent."""
    told = value_of(step["result"]) * (-1 if step["sign"] else 1)
    value = chain(operands(step))
    return value is not None and abs(value - told) < _TOLERANCE


def operands(step: re.Match[str]) -> list[tuple[str, Fraction]]:
    """The numbers left of the equals sign, each with the operation before it; the first has none that counts."""
    return [(operation or "+", value_of(number)) for operation, number in _OPERAND.findall(step["left"])]


def chain(operands: Sequence[tuple[str, Fraction]]) -> Fraction | None:
    """The value of a chain, products and quotients first. None: it divides by 0."""
    terms: list[Fraction] = []
    for operation, value in operands:
        if operation in "+-–−":
            terms.append(value if operation == "+" else -value)
        elif operation in "/÷" and not value:
            return None
        else:
            terms[-1] = terms[-1] / value if operation in "/÷" else terms[-1] * value
    return sum(terms, Fraction())


def value_of(number: str) -> Fraction:
    """The value of a match of :data:`NUMBER`."""
    return Fraction(number.replace(",", ""))
