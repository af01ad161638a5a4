"""Reading free text: where it runs on into invented questions, where it says its answer, and what is left as the rationale.

These rules hold for every kind of question; what an answer looks like is the kind's own business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# A line, or in text without lines a sentence, that opens another question: models shown examples go on inventing these.
_HEADER = re.compile(
    r"(?:(?:\A|\n)[ \t>*#_-]*|(?<=[.!?)])[ \t]+)"
    r"(?:q|question|problem|premise|exercise|example|input|human|user|student)[ \t]*#?[0-9]*[ \t*_]*:",
    re.IGNORECASE,
)
# Words that announce an answer: "#### 8", "\boxed{8", "the most likely answer is", "Answer:". What follows on the line is the answer.
_ANNOUNCED = re.compile(
    r"####|\\boxed\s*\{"
    r"|\b(?:answer|choice|option|label)\b[^\n.:;]{0,60}?\b(?:is|are|be|was|were)\b(?![ \t]+not\b)[ \t*_]*:?"
    r"|\b(?:answer|ans|label)\b[ \t*_]*[:=]",
    re.IGNORECASE,
)
# What leads up to an announcement and is no reasoning of its own.
_LEAD_IN = re.compile(r"(?:\b(?:so|thus|hence|therefore|finally|then),?[ \t]+)?(?:\b(?:the|my|final|correct|best|most[ \t]+\w+)[ \t]+)*[*_#$ \t]*\Z", re.I)
_OPENING_LABEL = re.compile(r"\A[ \t*_#]*(?:a|answer|explanation|reasonings?|rationale|solution)[ \t*_]*:[ \t*_]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """What a text announces as its answer: ``text`` follows the announcement, which stands at ``start``; the line ends at ``end``."""

    text: str
    start: int
    end: int


def squeeze(text: str) -> str:
    """The text in lower case with single spaces: for comparing, not for keeping."""
    return " ".join(text.lower().split())


def cut_run_on(text: str, question: str) -> str:
    """The text up to where it opens another question. A header that only restates the question asked is not one."""
    asked = squeeze(question)
    for header in _HEADER.finditer(text):
        restated = asked in squeeze(text[header.start() : header.end() + 2 * len(question)])
        if text[: header.start()].strip() and not (restated and not _ANNOUNCED.search(text, 0, header.start())):
            return text[: header.start() + 1].strip(" \t\n>*#_-")
    return text.strip()


def announced(text: str, closing: str) -> Iterator[Said]:
    """What the text announces as its answer, the surest first: by the recipe's closing phrase, then by usual words; the last of each first."""
    for pattern in (_closing_pattern(closing), _ANNOUNCED):
        for match in reversed(list(pattern.finditer(text))):
            end = text.find("\n", match.end())
            end = len(text) if end < 0 else end
            if said := text[match.end() : end].strip(" \t*_"):
                yield Said(said, match.start(), end)
            elif following := text[end:].strip():  # "Answer:" alone on its line
                yield Said(following.split("\n", 1)[0], match.start(), end + len(text[end:]) - len(text[end:].lstrip()))


def without(text: str, said: Said) -> str:
    """The rationale: what stands before the announcement, or after it where the answer came first."""
    before = _LEAD_IN.sub("", text[: said.start])
    return clean(before) or clean(text[said.end :])


def clean(rationale: str) -> str:
    """The rationale without a label in front ("Explanation:") and without blanks around."""
    return _OPENING_LABEL.sub("", rationale).strip()


@lru_cache(maxsize=64)
def _closing_pattern(closing: str) -> re.Pattern[str]:
    """The words of the closing phrase before {answer}; blanks may differ, as tokenizers put them back differently."""
    words = closing.split("{answer}", 1)[0].split()
    return re.compile(r"\s+".join(map(re.escape, words)) or r"\A", re.IGNORECASE)
