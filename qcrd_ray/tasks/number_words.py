"""English number words: "minus seven", "two hundred and five", "three point five", "two thirds".

What is no number for sure ("one of them", "two dozen", "nineteen eighty") has no value.
"""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ONES = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "tenth": 10}

_WORD = "|".join(sorted([*_ONES, *SCALES], key=len, reverse=True))
_PART = rf"(?:{'|'.join(_PARTS)})s?"
_PHRASE = re.compile(
    rf"(?<![\w-])(?:(?P<sign>minus|negative) )?"
    rf"(?P<whole>(?:an? )?(?:{_WORD})(?:(?:-| and | )(?:{_WORD}))*)"
    rf"(?: point (?P<decimals>(?:{_WORD})(?: (?:{_WORD}))*))?"
    rf"(?: and (?P<count>an?|one|two|three)[- ](?P<part>{_PART})|[- ](?P<parts>{_PART}))?"
    r"(?P<unsure>(?: or|,)? (?:dozen|score|couple|pair)s?\b| of (?:the|these|those|them|us"
    r"|my|his|her|their|its|our|your)\b)?(?![\w])",
    re.IGNORECASE,
)
_POINTING = re.compile(
    r"\b(?:the|this|that|each|every|any|which|no|another|only)\s+\Z", re.IGNORECASE
)


def find_words(text: str) -> list[tuple[int, int, Fraction | None]]:
    """The numbers written as words, in their order, with where each starts and ends.

    None: words of numbers that are no number for sure.
    """
    found: list[tuple[int, int, Fraction | None]] = []
    for match in _PHRASE.finditer(text):
        numbers = _split(match["whole"].lower())
        for place, (tokens, start, end) in enumerate(numbers):
            last = place == len(numbers) - 1
            value = _whole(tokens)
            if last and value is not None:
                value = _completed(value, tokens, match)
            if tokens == ["one"] and _POINTING.search(text[: match.start()]):
                value = None  # "this one", "the one who ..."
            base = match.start("whole")
            found.append(
                (
                    base + start if place else match.start(),
                    match.end() if last else base + end,
                    value,
                )
            )
    return found


def _split(words: str) -> list[tuple[list[str], int, int]]:
    """The words of one number or, around an "and" that joins two, of each; with its place.

    "and" belongs to a number behind "hundred", "thousand" ...: in "five and six" it joins two.
    """
    numbers: list[tuple[list[str], int, int]] = []
    joins = True
    for match in re.finditer(r"[a-z]+", words):
        if match[0] == "and":
            joins = numbers[-1][0][-1] not in SCALES
        elif joins:
            numbers.append(([match[0]], match.start(), match.end()))
            joins = False
        else:
            tokens, start, _ = numbers[-1]
            numbers[-1] = ([*tokens, match[0]], start, match.end())
    return numbers


def _whole(tokens: list[str]) -> Fraction | None:
    """The value of "two", "hundred", "seven"; None: no one number, as "nineteen eighty"."""
    total, group, scale = 0, None, 10**15
    for token in tokens:
        if token in ("a", "an"):
            continue
        if token == "hundred":
            if group is None and tokens[0] not in ("a", "an"):
                return None
            group = 100 * (1 if group is None else group)
            if group > 9_900:
                return None
        elif token in SCALES:
            if SCALES[token] >= scale or (group is None and tokens[0] not in ("a", "an")):
                return None
            scale = SCALES[token]
            total, group = total + scale * (1 if group is None else group), None
        else:
            value = _ONES[token]
            below = None if group is None else group % 100
            fits = not below or (value < 10 and value and below >= 20 and below % 10 == 0)
            if group is not None and (group == 0 or not fits or not value):
                return None
            group = value + (group or 0)
    return Fraction(total + (group or 0))


def _completed(value: Fraction, tokens: list[str], match: re.Match[str]) -> Fraction | None:
    """A number with what follows it: decimals, a part, a sign; None where that is unsure."""
    if match["unsure"] or (tokens[0] in ("a", "an") and len(tokens) == 1):
        return None
    if match["decimals"]:
        digits = [_ONES.get(word, 10) for word in match["decimals"].lower().split()]
        if max(digits) > 9:
            return None
        value += Fraction(int("".join(map(str, digits))), 10 ** len(digits))
    if match["part"]:
        count = match["count"].lower()
        value += Fraction(_ONES.get(count, 1), _part(match["part"]))
    elif match["parts"]:  # "two thirds"; "one third" may be a rank, and then no text says "one"
        value /= _part(match["parts"])
    return -value if match["sign"] else value


def _part(word: str) -> int:
    word = word.lower()
    return _PARTS.get(word) or _PARTS[word.removesuffix("s")]
