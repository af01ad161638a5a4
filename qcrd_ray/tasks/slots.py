"""Slots: a word problem and its solution with names in the place of numbers.

A small model can learn which numbers to add; it cannot learn to add any two. So it reads the
numbers of a question as n1, n2 ... in their order, and writes steps between them; their results are
r1, r2 ...::

    Danny has 67 wrappers and 35 caps. How many more wrappers has he?
    Danny has n1 wrappers and n2 caps. How many more wrappers has he?

    67 wrappers - 35 caps = 32 more wrappers. So the answer is 32.
    n1 wrappers - n2 caps = r1 more wrappers. So the answer is r1.

:func:`hide` writes slots and :func:`fill` puts the numbers back, computing the results: nothing is
evaluated but a chain of + - * / between known numbers. A text keeps a number that has no slot,
above all the result of a step that is wrong, rounded or of another form. Which slot a number takes
where it could be several is a rule, not knowledge:

- In a step, and in the text, a number that is a result is that result, the last such one;
- else it is a number of the question. Equal numbers of a question go to the first slot, but within
  one step each takes the next ("5 + 5" is n1 + n2).

The label head's answer is an expression in prefix notation over the slots, "- n1 n2".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, permutations

from qcrd_ray.tasks.numbers import MOST_DIGITS, spell
from qcrd_ray.tasks.steps import NUMBER, STEP, chain, operand_pattern, step_pattern, value_of

# the most numbers of a question among which two operations are searched
MOST_SEARCHED = 5
_LARGEST = 10**MOST_DIGITS

Span = tuple[int, int]

_NAME = r"[nr][0-9]{1,2}"
SLOT = re.compile(rf"(?<![\w.,]){_NAME}(?!\w)")
_NUMBER = re.compile(rf"(?<![\w.,]){NUMBER}(?![\w]|\.[0-9])")
_EITHER = rf"(?:{_NAME}|{NUMBER})"
_STEP = step_pattern(_EITHER)
_OPERAND = operand_pattern(_EITHER)
_DIGIT_OPERAND = operand_pattern(NUMBER)
_OPERATIONS = "+-*/"


def numbers_of(question: str) -> list[Fraction]:
    """The numbers of a question: the values of n1, n2 ... in their order."""
    return [value_of(number[0]) for number in _numbers(question)]


def hide_given(question: str) -> str:
    """The question with slots for its numbers; its words stay."""
    numbers = list(_numbers(question))
    return _with(question, {number.span(): f"n{i}" for i, number in enumerate(numbers, 1)})


def hide(text: str, given: Sequence[Fraction]) -> str:
    """``text``, which may hold steps, with slots for its numbers; see the module.

    Args:
        given: the question's numbers.
    """
    results: dict[Fraction, str] = {}
    spans: dict[Span, str] = {}
    count = 0
    for between, step in _cut(text, STEP):
        for number in _numbers(text, *between):
            _put(spans, number.span(), _name(value_of(number[0]), results, given))
        if step is None:
            continue
        operands = []
        used: set[str] = set()  # in this step
        for operand in _DIGIT_OPERAND.finditer(text, *step.span("left")):
            value = value_of(operand[2])
            operands.append((operand[1] or "+", value))
            name = _name(value, results, given, used)
            _put(spans, operand.span(2), name)
            used.add(name or "")
        result = value_of(step["result"])
        if chain(operands) == result and not step["sign"] and _is_small(result):
            count += 1
            results[result] = f"r{count}"
            _put(spans, step.span("result"), f"r{count}")
        else:  # another result here would be computed from the step when it is read
            _put(spans, step.span("result"), _name(result, {}, given))
    return _with(text, spans)


def fill(text: str, given: Sequence[Fraction]) -> str:
    """``text`` with numbers for its slots; the results are computed.

    A slot without a value stays: no such number is given, or no step has this result.
    """
    values = {f"n{i}": value for i, value in enumerate(given, 1)}
    spans: dict[Span, str] = {}
    for between, step in _cut(text, _STEP):
        for slot in SLOT.finditer(text, *between):
            _put(spans, slot.span(), _spelt(slot[0], values))
        if step is None:
            continue
        for operand in _OPERAND.finditer(text, *step.span("left")):
            _put(spans, operand.span(2), _spelt(operand[2], values))
        name = step["result"]
        if name[0] == "r" and not step["sign"]:
            value = _computed(step, values)
            values.pop(name, None)  # a result that cannot be computed is not the one before
            if value is not None:
                values[name] = value
        _put(spans, step.span("result"), _spelt(name, values))
    return _with(text, spans)


def evaluate(expression: str, given: Sequence[Fraction]) -> Fraction | None:
    """The value of an expression in prefix notation over the slots; None: it is none."""
    values: dict[str, Fraction] = {f"n{i}": value for i, value in enumerate(given, 1)}
    stack: list[Fraction] = []
    for token in reversed(expression.split()):
        if token in values:
            stack.append(values[token])
        elif re.fullmatch(NUMBER, token) and len(token) <= MOST_DIGITS:
            stack.append(value_of(token))
        elif token in _OPERATIONS and len(token) == 1 and len(stack) >= 2:
            value = chain([("+", stack.pop()), (token, stack.pop())])
            if value is None or not _is_small(value):
                return None
            stack.append(value)
        else:
            return None
    return stack[0] if len(stack) == 1 else None


def expression_of(value: Fraction, given: Sequence[Fraction]) -> str | None:
    """The simplest expression over the slots that has this value, in prefix notation.

    One operation comes before two, and a number of the question as it stands comes last. None:
    there is none. Another expression may have the same value, so this is a guess.
    """
    for expression in _expressions(len(given)):
        if evaluate(expression, given) == value:
            return expression
    return None


def step_to(value: Fraction, given: Sequence[Fraction]) -> str | None:
    """The first step between two of the question's numbers with this result: "67 - 35 = 32".

    None: there is none, or its result is no decimal number from 0.
    """
    written = spell(value)
    if value >= 0 and "/" not in written:
        for expression in _pairs([f"n{i}" for i in range(1, len(given) + 1)]):
            if evaluate(expression, given) == value:
                operation, *slots = expression.split()
                one, other = (spell(given[int(slot[1:]) - 1]) for slot in slots)
                return f"{one} {operation} {other} = {written}"
    return None


def _expressions(count: int) -> Iterator[str]:
    slots = [f"n{i}" for i in range(1, count + 1)]
    yield from _pairs(slots)
    if count <= MOST_SEARCHED:
        for one, other in combinations(slots, 2):
            for inner in _pairs([one, other]):
                for third in slots:
                    if third not in (one, other):
                        yield from _pairs([inner, third])
    yield from slots


def _pairs(parts: Sequence[str]) -> Iterator[str]:
    """Every operation between two of ``parts``; a sum or a product in one order."""
    for one, other in combinations(parts, 2):
        yield f"+ {one} {other}"
        yield f"* {one} {other}"
    for one, other in permutations(parts, 2):
        yield f"- {one} {other}"
        yield f"/ {one} {other}"


def _cut(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[Span, re.Match[str] | None]]:
    """The steps of a text, each with the span between it and the one before; None ends it."""
    end = 0
    for step in pattern.finditer(text):
        yield (end, step.start()), step
        end = step.end()
    yield (end, len(text)), None


def _numbers(text: str, start: int = 0, end: int | None = None) -> Iterator[re.Match[str]]:
    found = _NUMBER.finditer(text, start, len(text) if end is None else end)
    return (number for number in found if len(number[0]) <= MOST_DIGITS)


def _name(
    value: Fraction,
    results: Mapping[Fraction, str],
    given: Sequence[Fraction],
    used: Collection[str] = (),
) -> str | None:
    """The slot of a number, one that is not in ``used`` if there is such a one."""
    if value in results:
        return results[value]
    slots = [f"n{i}" for i, each in enumerate(given, 1) if each == value]
    return next((slot for slot in slots if slot not in used), slots[0] if slots else None)


def _spelt(name: str, values: Mapping[str, Fraction]) -> str | None:
    return spell(values[name]) if name in values else None


def _computed(step: re.Match[str], values: Mapping[str, Fraction]) -> Fraction | None:
    operands: list[tuple[str, Fraction]] = []
    for operation, name in _OPERAND.findall(step["left"]):
        value = values.get(name) if name[0] in "nr" else value_of(name)
        if value is None:
            return None
        operands.append((operation or "+", value))
    value = chain(operands)
    return value if value is not None and _is_small(value) else None


def _is_small(value: Fraction) -> bool:
    """Whether it is worth computing with: a product of products must not grow for ever."""
    return abs(value.numerator) < _LARGEST and value.denominator < _LARGEST


def _put(spans: dict[Span, str], span: Span, word: str | None) -> None:
    if word is not None:
        spans[span] = word


def _with(text: str, spans: Mapping[Span, str]) -> str:
    """``text`` with other words in some of its spans."""
    written, end = [], 0
    for (start, past), word in sorted(spans.items()):
        written += [text[end:start], word]
        end = past
    return "".join([*written, text[end:]])
