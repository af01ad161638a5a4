"""Tasks whose answers are a few labels, each worded in several ways: yes or no, and their like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.answers import AROUND, LONGEST_ANSWER, concluded, sentences, undress
from qcrd_ray.tasks.prompting import PromptedTask

# What may stand between the announcing words and a label.
_BEFORE = (
    r"\A(?:(?:an?|the|that|it is|it|it's|it’s|this is|that is|definitely|certainly|clearly|surely|"
    r"obviously|simply|probably|most likely|likely|therefore|thus|indeed|either|both|"
    r"label|answer|statement is|claim is)\b[\W_]*)*"
)
_AND = re.compile(r"\W*(?:\bor\b|\band\b|/|&)\W*", re.IGNORECASE)
# What follows a label that is the whole answer ("No, because ..."), and no word of a sentence ("No
# dog flies").
_ALONE = re.compile(r"(?=[\W_]*\Z|[ ]*[.,:;!?)\n–—]|[ ]+-|[ ]*->|[ ]+(?:because|since|as)\b)")


@dataclass(frozen=True)
class LabelledTask(PromptedTask):
    """A :class:`~qcrd_ray.tasks.base.Task` with a few labels for answers.

    A kind says which, and how texts word them. A text that names two ("yes and no") has no answer.
    """

    # Each label with a regular expression of its wordings, its own spelling among them. They are
    # tried in this order: "not possible to tell" before "no".
    LABELS: ClassVar[Mapping[str, str]]

    def describe_answer(self, question: Question) -> str:
        names = list(self.labels())
        return " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"

    def labels(self) -> Mapping[str, str]:
        """LABELS; a task with wordings of its recipe's adds them here."""
        return self.LABELS

    def canonical(self, answer: str, question: Question) -> str | None:
        """The label that the text begins with, an article and the like aside."""
        found = self._at_start(answer)
        return found[0] if found and not self._another(*found) else None

    def unclear(self, text: str, question: Question) -> str:
        found = self._at_start(text)
        return "several answers are named" if found and self._another(*found) else ""

    def read_unannounced(self, text: str, question: Question) -> tuple[str, str] | None:
        """The last conclusion that is a label ("So, yes."), or a label as the last or first word.

        A label counts as a word where it is a sentence's whole answer, as in "No, because ...".
        """
        parts = sentences(text)
        places = [
            *(rest for part in reversed(parts) if (rest := concluded(part)) is not None),
            parts[-1],
            parts[0],
        ]
        for place in places:
            found = self._at_start(place)
            if found and not self._another(*found) and _ALONE.match(found[1]):
                return found[0], place
        return None

    def _at_start(self, text: str) -> tuple[str, str] | None:
        """The label that ``text`` begins with, and what follows it."""
        said = undress(text[:LONGEST_ANSWER]).lstrip(AROUND)
        for label, words in _patterns(tuple(self.labels().items())):
            if match := words.match(said):
                return label, said[match.end() :]
        return None

    def _another(self, label: str, rest: str) -> bool:
        """Whether what follows a label joins another one to it: "yes or no"."""
        joined = _AND.match(rest)
        found = self._at_start(rest[joined.end() :]) if joined else None
        return found is not None and found[0] != label


@lru_cache(maxsize=64)
def _patterns(labels: tuple[tuple[str, str], ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (label, re.compile(rf"{_BEFORE}(?:{words})(?!\w)", re.IGNORECASE))
        for label, words in labels
    )
