"""Reading free text: where it runs on into invented questions, where it says its answer, and what
is left as the rationale.

These rules hold for every kind of question; what an answer looks like is the kind's own business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# Degenerate text repeats itself for ever; reading it must not.
MOST_ANNOUNCEMENTS = 20
LONGEST_ANSWER = 400  # characters

# A line, or in text without lines a sentence, that opens another question: models shown examples go
# on inventing these.
_HEADER = re.compile(
    r"(?:(?:\A|\n)[ \t>*#_-]*|(?<=[.!?)])[ \t]+)"
    r"(?:q|question|problem|premise|exercise|example|input|human|user|student)[ \t]*#?[0-9]*["
    r" \t*_]*:",
    re.IGNORECASE,
)
# What leads up to an announcement and is no reasoning of its own.
_LEAD_IN = (
    r"(?:\b(?:so|thus|hence|therefore|finally|then),?["
    r" \t]+)?(?:\b(?:the|my|our|final|correct|best|most[ \t]+\w+)[ \t]+)*"
)
_LED_IN = re.compile(rf"{_LEAD_IN}(?:(?<!\S)[*_#$ \t]+)?\Z", re.IGNORECASE)
_OPENING_LABEL = re.compile(
    r"\A[ \t*_#]*(?:a|answer|explanation|reasonings?|rationale|solution)[ \t*_]*:[ \t*_]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a text announces as its answer: ``text`` follows the announcement, which stands at
    ``start``; the line ends at ``end``.
    """

    text: str
    start: int
    end: int


@lru_cache(maxsize=64)
def announcement(*nouns: str) -> re.Pattern[str]:
    """Words that announce an answer called one of ``nouns``: "#### 8", "\\boxed{8", "the most
    likely answer is 8", "Answer: 8".

    "Answer:" counts where a line or sentence starts with it: "let us check our answer: ..."
    announces nothing.
    """
    noun = f"(?:{'|'.join(nouns)})s?"
    return re.compile(
        r"####|\\boxed\s*\{"
        rf"|\b{noun}\b[^\n.:;]{{0,60}}?\b(?:is|are|be|was|were)\b(?![ \t]+not\b)[ \t*_]*:?"
        rf"|(?:(?:\A|\n)[ \t*_#]*|(?<=[.!?])[ \t]+){_LEAD_IN}{noun}\b[ \t*_]*[:=]",
        re.IGNORECASE,
    )


_ANY_ANSWER = announcement("answer")


def squeeze(text: str) -> str:
    """The text in lower case with single spaces: for comparing, not for keeping."""
    return " ".join(text.lower().split())


def cut_run_on(text: str, question: str) -> str:
    """The text up to where it opens another question. A first header that restates the question
    asked, before any answer, is not one.
    """
    for place, header in enumerate(_HEADER.finditer(text)):
        before = text[: header.start()].strip()
        if (
            place == 0
            and not _ANY_ANSWER.search(before)
            and squeeze(question) in squeeze(text[header.start() :])
        ):
            continue
        if before:
            return before
    return text.strip()


def announced(text: str, closing: str, pattern: re.Pattern[str]) -> Iterator[Said]:
    """What the text announces as its answer, the surest first.

    The recipe's closing phrase comes before the usual words of ``pattern``, and the last
    announcement before earlier ones: a text that corrects itself means its last word. An
    announcement that ends its line ("The answer is:") is followed by the next line with text.
    """
    for words in (_closing_words(closing), pattern):
        for match in list(words.finditer(text))[: -MOST_ANNOUNCEMENTS - 1 : -1]:
            start = (
                match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip(" \t\n*_"))
            )
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            if start < end:
                yield Said(text[start:end][:LONGEST_ANSWER], match.start(), end)


def without(text: str, said: Said) -> str:
    """The rationale: what stands before the announcement, or after it where the answer came
    first.
    """
    before, tail = text[: max(0, said.start - 80)], text[max(0, said.start - 80) : said.start]
    return clean(before + _LED_IN.sub("", tail)) or clean(text[said.end :])


def clean(rationale: str) -> str:
    """The rationale without a label in front ("Explanation:") and without blanks around."""
    return _OPENING_LABEL.sub("", rationale.strip()).strip(" \t\n*_,;")


@lru_cache(maxsize=64)
def _closing_words(closing: str) -> re.Pattern[str]:
    """The words of the closing phrase before {answer}; blanks may differ, as tokenizers put them
    back differently.
    """
    words = closing.split("{answer}", 1)[0].split()
    return re.compile(r"\s+".join(map(re.escape, words)), re.IGNORECASE)
