"""Questions answered in a few free words: SQuAD, TriviaQA and their like."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.answers import undress
from qcrd_ray.tasks.prompting import PromptedTask

SEVERAL = "|"  # between the accepted answers of one question

_ARTICLES = re.compile(r"\b(?:an?|the)\b")
# A sentence ends after a word of three letters or more: not in "St. Louis", "J. Bach" or "U.S.
# Army".
_SENTENCE_END = re.compile(r"(?<=\w\w\w[.!?])[ \t]+(?=[^a-z\s])")
_IN_NUMBER = re.compile(r"(?<=\d)[.:/](?=\d)|(?<![\w.])-(?=\d)")  # 3.5, 10:30, 1/2, -4


@dataclass(frozen=True)
class ShortText(PromptedTask):
    """A free short answer; answers are equal if :func:`normalise` makes them so.

    Several accepted answers stand in one text with "|" between, as a list column is read. The
    canonical spelling holds all of them, and every one of them is spelt so; a student is taught the
    first.
    """

    INSTRUCTION: ClassVar[str] = (
        "Answer the question in a few words. Explain step by step, then give the answer. End with"
        ' "{closing}"'
    )
    EXAMPLE: ClassVar[Question | None] = Question(
        id="example", question="Which river flows through Paris?"
    )

    def describe_answer(self, question: Question) -> str:
        return "a text with a letter or a digit in it"

    def canonical(self, answer: str, question: Question) -> str | None:
        """The normalised answer.

        Where it is one of those that the question accepts, it is the spelling of all of them.
        """
        spelt, accepted = _spellings(answer), _spellings(question.answer or "")
        return f" {SEVERAL} ".join(accepted if set(spelt) & set(accepted) else spelt) or None

    def read_announced(self, text: str, question: Question) -> str | None:
        """The first sentence of the line, undressed; a model's "|" is no separator."""
        return self.canonical(
            _SENTENCE_END.split(undress(text), maxsplit=1)[0].replace(SEVERAL, " "),
            question,
        )

    def label(self, answer: str, question: Question) -> str:
        return _spellings(answer)[0]

    def explanation(self, rationale: str, answer: str, question: Question) -> str:
        return super().explanation(rationale, _spellings(answer)[0], question)


def normalise(text: str) -> str:
    """The text after SQuAD's normalisation: lower case, no punctuation, no articles, single blanks.

    Unicode is brought to its compatible form (NFKC), and every dash becomes a blank. Points and
    signs inside numbers stay, so that 3.5 is not 35; articles stay where there is nothing else.
    The steps are repeated until nothing changes: what one mark leaves behind can be the next one's
    number.
    """
    while (plain := _plain(text)) != text:
        text = plain
    return text


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    kept = {match.start() for match in _IN_NUMBER.finditer(text)}
    words = " ".join(
        "".join(
            character if place in kept else _without_marks(character)
            for place, character in enumerate(text)
        ).split()
    )
    return " ".join(_ARTICLES.sub(" ", words).split()) or words


def _without_marks(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Pd":
        return " "
    return "" if category.startswith("P") or character in "$+<=>^`|~" else character


def _spellings(answer: str) -> list[str]:
    return list(
        dict.fromkeys(spelt for each in answer.split(SEVERAL) if (spelt := normalise(each)))
    )
