"""Arithmetic steps in a rationale: check them, and make wrong rationales by changing numbers.

A step is "3 + 4 = 7" or "12 pens - 3 pens - 2 pens = 7 pens". Nothing is evaluated but numbers. The
wrong rationales are as fluent as the right ones, in the same words:

- :func:`corrupted`, after PORT (arXiv 2406.16061), which changes digits of a right rationale. Here
  a digit of one step's result is changed, and what follows is computed from it. One step is wrong,
  and so is the answer that it leads to.
- :func:`misoperated` does another operation in one step ("3 + 4 = 7" becomes "3 * 4 = 12"). Every
  step of it is right.
- :func:`swapped` lets two of the question's numbers change places, as who mixes up what they count.
- :func:`evolved`, after ECD (arXiv 2410.07513), where an instruction is changed and the answer to
  the old one is a fluent wrong answer to the new one. The changed question would be a new example
  that nobody has labelled, so we turn it round: digits of the question's own numbers are changed,
  and the rationale of that other question is a fluent wrong one for this question. Every step of it
  is right; it answers something else.

Neither is wrong for certain, since an error can cancel out: the caller compares the answers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from random import Random
from typing import NamedTuple

from qcrd_ray.tasks.numbers import spell

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_OPERATION = r"[-–−+*/x×÷]"


def step_pattern(number: str) -> re.Pattern[str]:
    """A step between numbers that match ``number``: the groups left, sign and result."""
    # a number, and what it counts
    term = rf"{number}(?:\s+[A-Za-z][A-Za-z'/-]*){{0,5}}?(?:\s*\([A-Za-z' -]*\))?"
    return re.compile(
        rf"(?<![\w.,])(?P<left>{term}(?:\s*{_OPERATION}\s*\$?{term}){{1,8}})\s*=\s*(?P<sign>-?)\$?(?P<result>{number})(?![\w]|\.[0-9])"
    )


def operand_pattern(number: str) -> re.Pattern[str]:
    """An operand of a step: its operation, which the first one lacks, and its number."""
    return re.compile(rf"(?:({_OPERATION})\s*)?\$?({number})")


STEP = step_pattern(NUMBER)
_OPERAND = operand_pattern(NUMBER)
_SIGNS = ("+", "-–−", "*x×", "/÷")  # of each operation, the first is what we write
_TOLERANCE = Fraction(1, 100)  # people round to cents


class Steps(NamedTuple):
    """How many steps a text has, and how many of them are right."""

    right: int
    total: int


def check_steps(text: str) -> Steps:
    """Check every step in ``text``: a chain of + - * x / ÷ and its result.

    Other forms do not count.
    """
    steps = list(STEP.finditer(text))
    return Steps(sum(map(is_right, steps)), len(steps))


def is_right(step: re.Match[str]) -> bool:
    """Whether a match of :data:`STEP` gives the result of its chain, to a cent."""
    stated = value_of(step["result"]) * (-1 if step["sign"] else 1)
    value = chain(operands(step))
    return value is not None and abs(value - stated) < _TOLERANCE


def operands(step: re.Match[str]) -> list[tuple[str, Fraction]]:
    """The numbers left of the equals sign, each with the operation before it; "+" for the first."""
    return [
        (operation or "+", value_of(number)) for operation, number in _OPERAND.findall(step["left"])
    ]


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


# --- Rewriting a text's numbers ---

_NUMBER = re.compile(rf"(?<![\w.,]){NUMBER}(?![\w]|\.[0-9])")
# what a step is the value of: "Pens in a box = 12 / 3 = 4"
_NAMED = re.compile(r"[A-Za-z)]\s*=\s*\$?\Z")


def corrupted(text: str, answer: Fraction | None, random: Random) -> str | None:
    """``text`` with one wrong step and what follows from it.

    If its steps cannot be followed, ``answer`` is changed wherever it stands. None: it cannot be
    done with what ``random`` drew; another draw may do it.
    """
    steps = _followed(text)
    if steps:
        return _rewritten(text, steps, {}, slip=random.randrange(len(steps)), random=random)
    if answer is None or (changed := _digit_changed(answer, random)) is None:
        return None
    return _rewritten(text, (), {answer: changed}, slip=None, random=random)


def evolved(text: str, given: Collection[Fraction], random: Random) -> str | None:
    """``text`` as it would answer the same question with other numbers.

    ``given`` are the question's numbers. None: as for :func:`corrupted`.
    """
    steps = _followed(text)
    used = _used(steps, given)
    if not used:
        return None
    changes: dict[Fraction, Fraction] = {}
    # all are drawn before one fails, so that a seed gives the same draws as ever
    drawn = [
        (value, _digit_changed(value, random))
        for value in random.sample(used, random.randint(1, len(used)))
    ]
    for value, changed in drawn:
        if changed is None:
            return None
        changes[value] = changed
    return _rewritten(text, steps, changes, slip=None, random=random)


def misoperated(text: str, random: Random) -> str | None:
    """``text`` with another operation in one step, and what follows from it.

    None: as for :func:`corrupted`.
    """
    steps = _followed(text)
    if not steps:
        return None
    step = random.choice(steps)
    places = [match.start(1) for match in _OPERAND.finditer(step["left"]) if match[1]]
    place = step.start("left") + random.choice(places)
    old = next(signs for signs in _SIGNS if text[place] in signs)
    new = random.choice([signs[0] for signs in _SIGNS if signs != old])
    text = text[:place] + new + text[place + 1 :]
    changed = list(STEP.finditer(text))
    if [each.span() for each in changed] != [each.span() for each in steps]:
        return None
    return _rewritten(text, changed, {}, slip=None, random=random)


def swapped(text: str, given: Collection[Fraction], random: Random) -> str | None:
    """``text`` as if two of the question's numbers, ``given``, had changed places.

    None: as for :func:`corrupted`.
    """
    steps = _followed(text)
    used = _used(steps, given)
    if len(used) < 2:
        return None
    one, other = random.sample(used, 2)
    return _rewritten(text, steps, {one: other, other: one}, slip=None, random=random)


def _used(steps: Sequence[re.Match[str]], given: Collection[Fraction]) -> list[Fraction]:
    """The numbers of ``given`` that the steps compute with, each once, in their order."""
    used: list[Fraction] = []
    results: set[Fraction] = set()
    for step in steps:
        numbers = [value for _, value in operands(step)]
        used += [
            value
            for value in dict.fromkeys(numbers)
            if value in given and value not in results and value not in used
        ]
        results.add(value_of(step["result"]))
    return used


def _followed(text: str) -> list[re.Match[str]]:
    """The text's steps; [] if one of them is wrong or an equation has another form.

    Nothing can be computed from them then.
    """
    steps = list(STEP.finditer(text))
    named = sum(
        _NAMED.search(text, max(0, step.start() - 4), step.start()) is not None for step in steps
    )
    followed = len(steps) + named == text.count("=") and all(
        is_right(step) and not step["sign"] for step in steps
    )
    return steps if followed else []


def _rewritten(
    text: str,
    steps: Sequence[re.Match[str]],
    changes: Mapping[Fraction, Fraction],
    *,
    slip: int | None,
    random: Random,
) -> str | None:
    """``text`` with the numbers of ``changes`` replaced and the steps' results computed anew.

    A digit of the result of step ``slip`` is changed too. A new result replaces the old number from
    there on. None: a result is below 0, or no longer a whole number, or no decimal.
    """
    results = {step.start("result"): (i, step) for i, step in enumerate(steps)}
    now, written, end = dict(changes), [], 0
    for number in _NUMBER.finditer(text):
        old = value_of(number[0])
        if number.start() in results:
            i, step = results[number.start()]
            new = chain([(operation, now.get(value, value)) for operation, value in operands(step)])
            new = _digit_changed(new, random) if i == slip and new is not None else new
            if (
                new is None
                or new < 0
                or "/" in spell(new)
                or (old.denominator == 1 and new.denominator != 1)
            ):
                return None
            now[old] = new
        new = now.get(old, old)
        written += [text[end : number.start()], number[0] if new == old else spell(new)]
        end = number.end()
    return "".join([*written, text[end:]])


def _digit_changed(value: Fraction, random: Random) -> Fraction | None:
    """The number with one digit changed, of the same length; None for one with a fraction bar."""
    text = spell(value)
    if "/" in text:
        return None
    place = random.choice([i for i, character in enumerate(text) if character.isdigit()])
    first = len(text) > 1 and place == 0
    digit = random.choice([d for d in "0123456789"[first:] if d != text[place]])
    return Fraction(text[:place] + digit + text[place + 1 :])
