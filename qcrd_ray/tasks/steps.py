"""Arithmetic inside a rationale, checked step by step: "5 - 2 = 3" is right, "5 - 2 = 4" is not. Nothing is evaluated but numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_NUMBER = r"[-+]?\$?\d[\d,]*(?:\.\d+)?"
_STEP = re.compile(rf"({_NUMBER})\s*([-+*/x×÷])\s*({_NUMBER})\s*=\s*({_NUMBER})")
_TOLERANCE = Fraction(1, 100)  # people round to cents


class Steps(NamedTuple):
    """How many steps of the form "a op b = c" a text has, and how many of them are right."""

    right: int
    total: int


def check_steps(text: str) -> Steps:
    """Check every "a op b = c" in ``text`` (op one of + - * x / and their signs); other forms are not counted at all."""
    right = total = 0
    for left, operation, second, result in _STEP.findall(text):
        a, b, c = (Fraction(number.replace(",", "").replace("$", "")) for number in (left, second, result))
        total += 1
        right += _holds(a, operation, b, c)
    return Steps(right, total)


def _holds(a: Fraction, operation: str, b: Fraction, c: Fraction) -> bool:
    if operation in "/÷":
        return b != 0 and abs(a / b - c) < _TOLERANCE
    value = a + b if operation == "+" else a - b if operation == "-" else a * b
    return abs(value - c) < _TOLERANCE
