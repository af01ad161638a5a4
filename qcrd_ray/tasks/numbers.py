"""Numbers in text: found, read exactly, and given one spelling.

They are read as fractions, never as floats, and never by ``eval``. What looks like a number and
cannot be read for sure (±3, 1.2.3, 12/25/2020, 3,5 where the point is decimal) has no value.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from qcrd_ray.tasks.number_words import SCALES, find_words

MOST_DIGITS = 40  # longer strings of digits are noise, and a way to make exact arithmetic slow

DecimalMark = Literal["point", "comma"]
# A number, or None where it cannot be read for sure, with where it starts and ends.
Found = tuple[int, int, Fraction | None]

_GROUPS = "\u00a0\u2009\u202f'’_ "  # between groups of three digits, beside the comma or point
_MINUS = r"-−–"
_PLAIN_GROUP = re.compile(r"(?:\A|[=:$€£¥#{(]|\b(?:is|are|was|were|be|equals?))\s*[-−]?\Z", re.I)


@lru_cache(maxsize=2)
def _number(decimal: DecimalMark) -> re.Pattern[str]:
    if decimal == "point":
        point, comma, other = r"\.", ",", ""
    else:  # a point that parts no group of three is one all the same: 0.5, 0.125, 1.2340
        point, comma, other = ",", ".", r"|[0-9]+\.[0-9]+"
    grouped = (
        rf"[1-9][0-9]{{0,2}}(?P<mark>[{comma}{_GROUPS}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*(?![0-9])"
    )
    whole = rf"(?:[0-9]+{point}[0-9]+{other}|[0-9]+)"
    return re.compile(
        r"(?=[-−–.,0-9±+MmNn])(?<![\w.,^])(?:"  # not inside a word, a number, a decimal or a power
        r"(?P<unsure>±\s?|\+/?[-−]\s?)?"
        # a minus after an operand is an operation, unless that is the "=" of a result
        rf"(?P<sign>(?<![\w)\]}}%\"'] )(?<![)\]}}%\"'])[{_MINUS}][$€£¥]?"
        r"|(?<==[ ])[-−][ ]|(?<=\bis[ ])[-−][ ]|negative[ ]|(?:(?<=\bis[ ])|(?<=\bbe[ ])"
        r"|(?<=\bto[ ])|(?<=\bwas[ ])|(?<=equals[ ])"
        r"|(?<=[=:,(][ ])|(?<=[:(=*])|(?<=\A)|(?<=\n))minus[ ])?"
        r"(?:(?P<whole>[0-9]+)(?: and)? (?=[0-9]+/[0-9]))?"  # 1 1/2
        rf"(?P<digits>{grouped}(?:{point}[0-9]+)?|(?!0x[0-9a-f]){whole}|{point}[0-9]+)"
        r"(?:\s?/\s?(?P<below>[0-9]+(?:\.[0-9]+)?)(?![0-9/])"
        r"|(?:e(?P<exponent>[+-]?[0-9]+)(?!\w)|\s?[x×*·]\s?10\^\{?(?P<times>[-−]?[0-9]+)\}?"
        r"|\^\{?(?P<power>[0-9]+)\}?)"
        r"|[ -](?P<scale>hundred|thousand|million|billion|trillion)\b"
        r"|[ ](?P<more>and an? (?:half|quarter|third)\b|dozens?\b|½))?"
        # not half a number, a date, an ordinal, a coefficient, or thousands in short
        rf"(?![0-9]|[,./:][0-9]|e[0-9]|\^|(?:st|nd|rd|th|[xyzk]|bn|mn|(?-i:[MB]))\b)"
        r"|(?P<odd>0x[0-9a-f]+|[0-9]+(?:[.,:/'’_\u00a0\u2009\u202f][0-9]+)+(?!\w)"
        r"|[0-9][0-9.,]*(?:k|bn|mn|(?-i:[MB])|e[+-]?[0-9]+|\^\S*)(?!\w)))",
        re.IGNORECASE,
    )


_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\times\b\s?"), "×"),
    (re.compile(r"\\cdot\b\s?"), "·"),
    (re.compile(r"\\pm\b\s?"), "±"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!;:]|\\(?=[$%])"), ""),
    (re.compile(r"<<[^<>]*>>"), ""),  # GSM8K's calculator marks
)
_FRACTIONS = {
    character: unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    for character in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
_FRACTION = re.compile(
    rf"(?P<after>(?<=[0-9{''.join(_FRACTIONS)}]) ?)?(?P<character>[{''.join(_FRACTIONS)}])"
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile(r"(?<=[0-9])⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_FOREIGN_DIGIT = re.compile(r"[^\W_a-zA-Z0-9]")
# marks that full-width and Arabic numbers are written with
_FOREIGN_MARK = re.compile(r"(?<=[0-9])[．，٫٬](?=[0-9])|[－＋](?=[0-9])|[％＝＄]")
_MARKS = str.maketrans("．，٫٬－＋％＝＄", ".,.,-+%=$")


def plain(text: str) -> str:
    """The text without LaTeX and calculator marks, its digits and fractions in ASCII.

    :func:`find_numbers` reads such a text.
    """
    if "\\" in text or "{,}" in text or "<<" in text:  # most texts have none
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return text if text.isascii() else _in_ascii(text)


def find_numbers(text: str, decimal: DecimalMark = "point") -> list[tuple[int, int, Fraction]]:
    """The numbers of a :func:`plain` text in their order, each with where it starts and ends.

    Such as 1,234, $5.00, -3, 3/4, 1 1/2, 1.5e3, 10^5 and 2 million. Those that cannot be read for
    sure are left out.
    """
    return [
        (start, end, value)
        for start, end, value in spot_numbers(text, decimal)
        if value is not None
    ]


def spot_numbers(text: str, decimal: DecimalMark = "point") -> list[Found]:
    """:func:`find_numbers`, and with None in their place those that cannot be read for sure."""
    found: list[Found] = []
    for match in _number(decimal).finditer(text):
        start, end = match.span()
        value = None
        if end - start <= MOST_DIGITS and match["odd"] is None and match["unsure"] is None:
            value = _value(
                *match.group("sign", "whole", "digits", "mark", "below", "exponent", "times"),
                *match.group("power", "scale", "more"),
            )
            if match["mark"] == " " and not _is_grouped(text[:start], match["digits"]):
                value = None
        found.append((start, end, value))
    return found


def find_number_words(text: str) -> list[Fraction]:
    """The numbers that are written as words, in their order."""
    return [value for _, _, value in find_words(text) if value is not None]


@lru_cache(maxsize=4096)
def spell(value: Fraction) -> str:
    """The one spelling of a number: "32", "-0.5", and "1/3" where no decimal ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1 or value.denominator > 10**MOST_DIGITS:
        return f"{value.numerator}/{value.denominator}"
    with localcontext(prec=200):  # exact: so many digits no decimal over 10^MOST_DIGITS has
        text = format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_grouped(before: str, digits: str) -> bool:
    """Whether digits with blanks between are one number for sure, 12 000, and not 5 100.

    They are where a group begins with 0, which no number does, and where they are all that is said.
    """
    return digits[0] != "0" and (
        any(group[0] == "0" for group in digits.split(" ")[1:])
        or _PLAIN_GROUP.search(before) is not None
    )


def _in_ascii(text: str) -> str:
    text = _FRACTION.sub(_spell_fraction, text).replace("\u2044", "/")
    text = _POWER.sub(lambda match: f"^{match[0].translate(_RAISED)}", text)
    text = _FOREIGN_DIGIT.sub(_ascii_digit, text)
    return _FOREIGN_MARK.sub(lambda match: match[0].translate(_MARKS), text)


def _ascii_digit(match: re.Match[str]) -> str:
    value = unicodedata.decimal(match[0], None)
    return match[0] if value is None else str(value)


def _spell_fraction(match: re.Match[str]) -> str:
    """1½ and 1 ½ are 1 1/2."""
    blank = "" if match["after"] is None else " "
    return blank + _FRACTIONS[match["character"]]


@lru_cache(maxsize=4096)  # the K samples of a question write the same numbers
def _value(
    sign: str | None,
    whole: str | None,
    digits: str,
    mark: str | None,
    below: str | None,
    exponent: str | None,
    times: str | None,
    power: str | None,
    scale: str | None,
    more: str | None,
) -> Fraction | None:
    """The value of a match of _number by its groups; None: it has none, or too many digits."""
    value = Fraction((digits.replace(mark, "") if mark else digits).replace(",", "."))
    if below:
        if not (divisor := Fraction(below)):
            return None
        value /= divisor
    if whole:
        value += Fraction(whole)
    if ten := exponent or times:
        if abs(places := int(ten.replace("−", "-"))) > MOST_DIGITS:
            return None
        value *= Fraction(10) ** places
    elif power:
        if int(power) * len(digits) > MOST_DIGITS:
            return None
        value **= int(power)
    elif scale:
        value *= SCALES[scale.lower()]
    elif more:
        words = more.lower().split()
        if words[0] != "and":  # dozens: the answer may be their number, or twelve times it
            return None
        value += Fraction(1, {"half": 2, "third": 3, "quarter": 4}[words[-1]])
    if len(spell(value)) >= MOST_DIGITS:  # its own spelling could not be read, with its sign
        return None
    return -value if sign else value
