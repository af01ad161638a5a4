"""Questions answered by one of their own choices: CommonsenseQA and its like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.records import Question
from qcrd_ray.tasks.answers import announced, clean, cut_run_on, squeeze, without
from qcrd_ray.tasks.base import Parsed
from qcrd_ray.tasks.prompting import PromptedTask

# "(d)", "d)", "D.", "D:", "D," or a lone capital D at the start of what is said. A lone small "a" is an article.
_LETTER = re.compile(r"\A\W*?(?:\(([a-z])\)|([a-z])\)|([a-z])[.:](?!\w)|((?-i:[A-Z]))(?=[\s,;*}\]\"']*(?:\Z|[,;*}\]\"'\n]|[-–—] )))", re.IGNORECASE)


@dataclass(frozen=True)
class MultipleChoice(PromptedTask):
    """The answer is the text of a choice; models name it by letter, by text, or by both."""

    INSTRUCTION: ClassVar[str] = 'Choose the best answer. Explain step by step, then name your choice. End with "{closing}"'

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
        """The choice's own text, whether ``answer`` is that text, a letter, or both."""
        return self._by_text(answer, question) or self._by_letter(answer if len(answer.strip()) > 1 else answer.upper(), question)

    def parse(self, text: str, question: Question) -> Parsed:
        """The announced choice, else the only choice that the last sentence naming any names."""
        kept = cut_run_on(text, question.question)
        if not kept:
            return Parsed(reason="the completion is empty")
        for said in announced(kept, self.recipe.closing):
            if choice := self._by_letter(said.text, question) or self._by_text(said.text, question):
                return Parsed(rationale=without(kept, said), answer=choice)
        return Parsed(rationale=clean(kept), reason="no choice in the completion")

    def _by_letter(self, said: str, question: Question) -> str | None:
        match = _LETTER.match(said)
        if not match:
            return None
        index = ord(match[match.lastindex].lower()) - ord("a")
        return question.choices[index] if index < len(question.choices) else None

    def _by_text(self, said: str, question: Question) -> str | None:
        """The longest choice that what is said starts with."""
        said = re.sub(r"\A\W+|\W+\Z", "", squeeze(said))
        named = [c for c in question.choices if said == squeeze(c) or re.match(rf"{re.escape(squeeze(c))}(?!\w)", said)]
        return max(named, key=len, default=None)
