"""Reading a model's free text: its thinking, its announced answer, and the rationale between.

These rules hold for every kind of question. What an answer looks like, each kind defines itself.
Models often go on to invent further questions; what they write there is cut off.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# Degenerate text repeats an announcement for ever; the time to read it must stay bounded.
MOST_ANNOUNCEMENTS = 20
LONGEST_ANSWER = 400  # characters
LONGEST_EXCERPT = 120  # of where an answer was read

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


# What is set around an answer: LaTeX, Markdown, tags, double quotes.
_DRESS = re.compile(
    r"\\(?:boxed|fbox|text(?:bf|it|rm|tt)?|math(?:rm|bf|tt)|emph|underline)\s*(?=\{)"
    r"|\\[()\[\],;! ]"
    r"|<(?P<tag>\w{1,20})>(?=[^<>\n]{0,80}</(?P=tag)>)|</\w{1,20}>"
    r"|[*`${}\"“”„«»]|__"
)
AROUND = f"{string.punctuation}{string.whitespace}‘’…–—"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_CONCLUSION = re.compile(
    r"\W*(?:(?:and )?so|thus|hence|therefore|in conclusion|overall|in summary|to conclude|"
    r"consequently|in short)\b[\s,:]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A place where a text announces its answer ("So the answer is 8.")."""

    text: str  # what follows the announcing words on their line
    start: int  # of the announcing words
    end: int  # of the line


@lru_cache(maxsize=64)
def announcement_pattern(*nouns: str) -> re.Pattern[str]:
    """Words that announce an answer, which is called one of ``nouns``.

    They match "#### 8", "\\boxed{8", "<answer>8", "the most likely answer is 8", "Answer: 8" and a
    heading "**Answer**". A colon counts only at the start of a line or sentence: "let us check our
    answer: ..." announces nothing, and so does "option C is ...".
    """
    noun = f"(?:{'|'.join(nouns)})s?"
    lettered = r"(?![ \t]*[(\[]?(?-i:[A-HJ-Z])[)\]]?[ \t]+(?:is|are|be|was|were)\b)"
    return re.compile(
        r"####|\\(?:boxed|fbox)\s*\{|<(?:final[_ ])?answer>"
        rf"|\b{noun}\b{lettered}(?:(?!,\s+(?:you|we|i|let)\b)[^\n.:;]){{0,60}}?"
        r"\b(?:is|are|be|was|were)\b(?![ \t]+not\b)[ \t*_]*:?"
        rf"|(?:(?:\A|\n)[ \t*_#>]*|(?<=[.!?])[ \t]+){_LEAD_IN}(?:{noun}(?![^\W_])[ \t*_]*"
        r"(?:[:=→⇒]|[-–—]+>?(?=[ \t]))|ans\b[ \t*_]*[:.=])"
        rf"|(?:\A|\n)[ \t]*(?:#+[ \t]*|\*\*){_LEAD_IN}{noun}[ \t*_]*(?=\n)",
        re.IGNORECASE,
    )


_ANY_ANSWER = announcement_pattern("answer")


def undress(text: str) -> str:
    """The text without LaTeX, Markdown, tags and quotes: "\\boxed{\\text{C}}." is "C."."""
    return _DRESS.sub("", text)


def bare(text: str) -> str:
    """The :func:`undress` ed text without marks at its ends: "**(C)**." is "C"."""
    return undress(text).strip(AROUND)


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold anything."""
    return [each for each in _SENTENCE_END.split(text) if each.strip()]


def concluded(sentence: str) -> str | None:
    """What follows "So", "Therefore" and the like at the start of a sentence; None: without one."""
    match = _CONCLUSION.match(sentence)
    return sentence[match.end() :] if match else None


def squeeze(text: str) -> str:
    """The text in lower case with single spaces: for comparing, not for keeping."""
    return " ".join(text.lower().split())


def cut_run_on(text: str, question: str) -> str:
    """The text up to where it opens another question.

    A first header that restates the question asked, before any answer, does not count.
    """
    if ":" not in text:  # most have none, and the pattern is a slow one
        return text.strip()
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


def find_announcements(text: str, closing: str, pattern: re.Pattern[str]) -> Iterator[Announcement]:
    """The announcements of an answer in a text, the surest first.

    The recipe's closing phrase comes before the words of ``pattern``, and a later announcement
    before an earlier one, since a text that corrects itself means its last word. Where an
    announcement ends its line ("The answer is:"), the next line with text holds the answer.
    """
    for words in (_closing_words(closing), pattern):
        for match in list(words.finditer(text))[: -MOST_ANNOUNCEMENTS - 1 : -1]:
            start = (
                match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip(" \t\n*_"))
            )
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            if start < end:
                yield Announcement(text[start:end][:LONGEST_ANSWER], match.start(), end)


def excerpt(text: str, announcement: Announcement) -> str:
    """The announcing words and what follows them, on one line and not too long."""
    return " ".join(text[announcement.start : announcement.end].split())[:LONGEST_EXCERPT]


def rationale_without(text: str, announcement: Announcement) -> str:
    """What stands before the announcement, or after it where the answer comes first."""
    kept = text[: announcement.start]
    if kept.rstrip(" \t*_")[-1:] not in ".!?\n":  # nothing leads up to it behind a sentence's end
        near = max(0, announcement.start - 80)  # where the words that do can begin
        kept = text[:near] + _LED_IN.sub("", kept[near:])
    return clean(kept) or clean(text[announcement.end :])


def clean(rationale: str) -> str:
    """The rationale without a label in front ("Explanation:") and blanks around it."""
    return _OPENING_LABEL.sub("", rationale.strip()).strip(" \t\n*_,;")


@lru_cache(maxsize=64)
def _closing_words(closing: str) -> re.Pattern[str]:
    """The words of the closing phrase before {answer}; tokenizers may change its blanks."""
    words = closing.split("{answer}", 1)[0].split()
    return re.compile(r"\s+".join(map(re.escape, words)), re.IGNORECASE)
