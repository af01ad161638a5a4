"""Questions answered by one of their own choices: CommonsenseQA and its like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.answers import (
    announcement_pattern,
    clean,
    cut_run_on,
    find_announcements,
    rationale_without,
    squeeze,
)
from qcrd_ray.tasks.base import Parsed
from qcrd_ray.tasks.prompting import PromptedTask

# "(d)", "d)", "D.", "D:", or a capital D before "(" or the end of its phrase. A lone small "a" is
# an article.
_LETTER = re.compile(
    r"\A\W*?(?:\(([a-z])\)|([a-z])\)|([a-z])[.:](?!\w)|((?-i:[A-Z]))(?=[*}$\]\"'"
    r" ]*(?:\Z|[,;\n(]|[-–—] )))",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\(([a-z])\)|\b(?:choice|option|answer) ((?-i:[A-Z]))\b", re.IGNORECASE)
_CONCLUSION = re.compile(r"\A\W*(?:so|thus|hence|therefore|in conclusion|overall)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_ANNOUNCED = announcement_pattern("answer", "choice", "option")


@dataclass(frozen=True)
class MultipleChoice(PromptedTask):
    """The answer is the text of a choice; models name it by letter, by text, or by both."""

    INSTRUCTION: ClassVar[str] = (
        'Choose the best answer. Explain step by step, then name your choice. End with "{closing}"'
    )

    def check(self, question: Question) -> str:
        if len(set(map(squeeze, question.choices))) < 2:
            return "a multiple-choice question needs at least two different choices"
        if not all(choice.strip() for choice in question.choices):
            return "a choice is empty"
        if len(question.choices) > 26:
            return f"{len(question.choices)} choices are more than there are letters to name them"
        return super().check(question)

    def describe_answer(self, question: Question) -> str:
        return f"one of the choices {list(question.choices)} or its letter"

    def student_input(self, question: Question) -> str:
        """The question with its lettered choices, in the form of Distilling Step-by-Step."""
        choices = [f"({chr(ord('a') + i)}) {choice}" for i, choice in enumerate(question.choices)]
        return "\n".join([question.question.strip(), "Answer Choices:", *choices])

    def canonical(self, answer: str, question: Question) -> str | None:
        """The choice's own text, whether ``answer`` is that text or its letter.

        An answer that merely starts with one of them is none.
        """
        letter = re.fullmatch(r"\s*\(?([a-z])[).]?\s*", answer, re.IGNORECASE)
        return self._exactly(answer, question) or (
            self._lettered(letter[1], question) if letter else None
        )

    def parse(self, text: str, question: Question) -> Parsed:
        """The announced choice, else the one that the conclusion names by its letter.

        Several at once ("either (a) or (b)") are none.
        """
        kept = cut_run_on(text, question.question)
        if not kept:
            return Parsed(reason="the completion is empty")
        for announcement in find_announcements(kept, self.recipe.closing, _ANNOUNCED):
            if self._several(announcement.text, question):
                return Parsed(
                    rationale=clean(kept), reason="several choices are named as the answer"
                )
            if choice := self._choice(announcement.text, question):
                return Parsed(rationale=rationale_without(kept, announcement), answer=choice)
        sentences = [s for s in _SENTENCE_END.split(kept) if s.strip()]
        for sentence in [*(s for s in reversed(sentences) if _CONCLUSION.match(s)), sentences[-1]]:
            if len(named := self._named(sentence, question)) == 1:
                return Parsed(rationale=clean(kept), answer=named.pop())
        return Parsed(rationale=clean(kept), reason="no choice in the completion")

    def _choice(self, text: str, question: Question) -> str | None:
        """The choice that ``text`` names: by its whole text, its letter, or its first words."""
        return (
            self._exactly(text, question)
            or self._by_letter(text, question)
            or self._by_text(text, question)
        )

    def _exactly(self, text: str, question: Question) -> str | None:
        """The choice whose text this is, but for capitals, blanks and a full stop."""
        text = squeeze(text)
        return next(
            (choice for choice in question.choices if squeeze(choice) in (text, text.rstrip(" ."))),
            None,
        )

    def _by_letter(self, text: str, question: Question) -> str | None:
        """The choice whose letter comes first in ``text``."""
        match = _LETTER.match(text)
        letter = next(filter(None, match.groups()), None) if match else None
        return self._lettered(letter, question) if letter else None

    def _by_text(self, text: str, question: Question) -> str | None:
        """The longest choice that ``text`` starts with, an article aside."""
        start = re.sub(r"\A\W+", "", squeeze(text))
        starts = (start, re.sub(r"\A(?:an?|the) ", "", start))
        named = [
            c
            for c in question.choices
            if any(re.match(rf"{re.escape(squeeze(c))}(?!\w)", s) for s in starts)
        ]
        return max(named, key=len, default=None)

    def _named(self, sentence: str, question: Question) -> set[str]:
        """All choices that a sentence names by their letters."""
        return {
            c
            for pair in _NAMED.findall(sentence)
            if (c := self._lettered(pair[0] or pair[1], question))
        }

    def _several(self, text: str, question: Question) -> bool:
        """Whether ``text`` is a list of different choices.

        Such as "(b), (c), and (d)" or "either (a) bus or (e) theatre".
        """
        listed = re.match(
            r"\W*(?:either |both )?\([a-z]\)[^.()]{0,60}?(?:,|\bor\b|\band\b)\s*(?:or |and"
            r" )?\([a-z]\)",
            text,
            re.IGNORECASE,
        )
        return bool(listed) and len(self._named(listed[0], question)) > 1

    def _lettered(self, letter: str, question: Question) -> str | None:
        index = ord(letter.lower()) - ord("a")
        return question.choices[index] if index < len(question.choices) else None
