"""Numbers in text: found, read exactly, and given one spelling.

They are read as fractions, never as floats, and never by ``eval``.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

MOST_DIGITS = 40  # longer strings of digits are noise, and a way to make exact arithmetic slow

_NUMBER = re.compile(
    r"(?<![\w.,])"  # not inside a word, a number or a decimal
    # a minus after an operand is an operation
    r"(?P<sign>(?<![\w)\]}%\"'] )(?<![)\]}%\"'])[-−]\$?)?"
    r"(?:(?P<whole>[0-9]+) (?=[0-9]+/[0-9]))?"  # 1 1/2
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:\s?/\s?(?P<below>[0-9]+(?:\.[0-9]+)?)(?![0-9]))?"
    # not half a number, an ordinal, or a coefficient
    r"(?![0-9]|[,.][0-9]|(?:st|nd|rd|th|[xyz])\b)",
    re.IGNORECASE,
)
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!;:]|\\(?=[$%])"), ""),
    (re.compile(r"<<[^<>]*>>"), ""),  # GSM8K's calculator marks
)
_WORDS = (
    *(
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
    ),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD_NUMBER = re.compile(
    rf"\b(?:({'|'.join(_TENS)})(?:[- ]({'|'.join(_WORDS[1:10])}))?|({'|'.join(_WORDS)}))\b",
    re.IGNORECASE,
)
_FRACTIONS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_FRACTION = re.compile(
    rf"(?P<after>(?<=[0-9{''.join(_FRACTIONS)}]) ?)?(?P<character>[{''.join(_FRACTIONS)}])"
)


def plain(text: str) -> str:
    """The text without LaTeX, calculator marks and fraction characters.

    :func:`find_numbers` reads such a text.
    """
    if any(mark in text for mark in ("\\", "{,}", "<<")):  # most texts have none
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return text if text.isascii() else _FRACTION.sub(_spell_fraction, text)


def find_numbers(text: str) -> list[tuple[int, int, Fraction]]:
    """The numbers of a :func:`plain` text in their order, each with where it starts and ends.

    Such as 1,234, $5.00, -3, 3/4 and 1 1/2.
    """
    found = []
    for match in _NUMBER.finditer(text):
        if match.end() - match.start() > MOST_DIGITS:
            continue
        value = _value(*match.group("sign", "whole", "digits", "below"))
        if value is not None:
            found.append((match.start(), match.end(), value))
    return found


def find_number_words(text: str) -> list[Fraction]:
    """The numbers up to 99 that are written as words, in their order."""
    found = []
    for tens, ones, small in _WORD_NUMBER.findall(text.lower()):
        found.append(
            Fraction(
                _WORDS.index(small)
                if small
                else 10 * (_TENS.index(tens) + 2) + (_WORDS.index(ones) if ones else 0)
            )
        )
    return found


@lru_cache(maxsize=4096)
def spell(value: Fraction) -> str:
    """The one spelling of a number: "32", "-0.5", and "1/3" where no decimal ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1 or value.denominator.bit_length() > 64:
        return f"{value.numerator}/{value.denominator}"
    with localcontext(prec=200):  # exact: at most MOST_DIGITS digits over 64 bits
        text = format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _spell_fraction(match: re.Match[str]) -> str:
    """1½ and 1 ½ are 1 1/2."""
    blank = "" if match["after"] is None else " "
    return blank + _FRACTIONS[match["character"]]


@lru_cache(maxsize=4096)  # the K samples of a question write the same numbers
def _value(sign: str | None, whole: str | None, digits: str, below: str | None) -> Fraction | None:
    """The value of a match of _NUMBER by its groups; None: it divides by zero."""
    value = Fraction(digits.replace(",", ""))
    if below:
        if not (divisor := Fraction(below)):
            return None
        value /= divisor
    if whole:
        value += Fraction(whole)
    return -value if sign else value
