"""Questions answered by one of their own choices: CommonsenseQA and its like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.answers import LONGEST_ANSWER, bare, concluded, sentences, squeeze, undress
from qcrd_ray.tasks.prompting import PromptedTask

_CALLED = r"(?:option|choice|answer|letter|alternative)s?"
_SURELY = r"(?:(?:definitely|clearly|certainly|probably|most likely|likely|therefore|thus)\W+)*"
# "(d)", "[d]", "d)", "D.", "D:", "option d", a D that ends its phrase ("D because ..."), or a small
# d as the whole text. A small "a" before a word is an article, and so may be one at the end of a
# text that was cut off.
_LETTER = re.compile(
    rf"\A[\W_]*?{_SURELY}(?:"
    rf"{_CALLED}[\W_]{{1,3}}([a-z])\b"
    r"|\(\s?([a-z])\s?\)|\[([a-z])\]|<([a-z])>|([a-z])[)\]]|([a-z])[.:](?!\w)"
    r"|((?-i:[A-Z]))(?=\W*\Z|\s*[,;!?\n(]|\s*[-–—=]+>?\s|\s+(?:because|since|as|is|which|due)\b)"
    r"|((?-i:[b-z]))(?=\W*\Z))",
    re.IGNORECASE,
)
# Two letters in a row: "(b) or (c)", "either (a) bus or (b) tram", "B, C, and D", "A/B".
_MENTION = r"(?:\([a-z]\)|\[[a-z]\]|(?-i:[A-Z])(?![\w'’]))"
_LISTED = re.compile(
    rf"\W*(?:either |both |between |{_CALLED} )*{_MENTION}[^.()\n]{{0,60}}?"
    rf"(?:,|/|&|\bor\b|\band\b)\s*(?:or |and |possibly |maybe |perhaps |{_CALLED} )*{_MENTION}",
    re.IGNORECASE,
)
_MENTIONED = re.compile(r"\(([a-z])\)|\[([a-z])\]|(?<![\w'’])((?-i:[A-Z]))(?![\w'’])", re.I)
_NAMED = re.compile(rf"\(([a-z])\)|\b{_CALLED} ((?-i:[A-Z]))\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:not|no|none|cannot|wrong|incorrect|eliminated?|unlikely)\b|n['’]t\b", re.I
)
_GIVEN = rf"(?:{_CALLED} )?[(\[]?(?:([a-z])[)\]]|((?-i:[A-Z])))"
_BEST = (
    r"(?:the |most |only |clearly |likely |our |my )*"
    r"(?:correct|right|best|answer|choice|option|appropriate|suitable|proper|fitting)\b"
)
# "C is the correct answer", "this makes C the best choice", "I choose C", but not "I choose C or D"
_PRAISED = re.compile(
    rf"\W*{_GIVEN}\W? (?:is|would be|must be|has to be|seems) {_BEST}"
    rf"|\W*(?:this|that|it|which) makes {_GIVEN}\W? {_BEST}"
    r"|\b(?:I|we)(?:['’](?:d|ll|m|re))? (?:(?:would|will|am|are|must) )*"
    rf"(?:choose|pick|select|say|go(?:ing)? with|choosing) {_GIVEN}(?!\w)"
    rf"(?!\W*(?:/|&|\bor\b|\band\b)\W*(?:{_CALLED} )?{_MENTION})",
    re.IGNORECASE,
)
# "it must be" C, "that leaves" C: what follows is the answer, if it is a choice and no more
_SETTLED = re.compile(
    r"\W*(?:it(?:['’]s| is| would be| should be| must be| has to be| can only be| could only be)"
    r"|(?:this|that|which) leaves(?: us)?(?: with)?(?: only| just)?"
    r"|we are left with(?: only| just)?)\b\s*",
    re.IGNORECASE,
)
_JOINS = re.compile(r"\s*(?:,|/|&|\bor\b|\band\b)\s*(?:or |and )?(?:an? |the )?", re.IGNORECASE)
_FOLLOWS_TEXT = re.compile(r"[ ]*(?:\Z|[.!;:)]|,|[ ]-|[–—]|[ ](?:because|since|as)\b)")
_PRAISE_AFTER_TEXT = re.compile(
    r"\W*(?:is|would be|must be|seems)(?: to be)? (?:the |most |only |clearly |likely )*"
    r"(?:correct|right|best|answer|choice|option|appropriate|suitable)\b",
    re.IGNORECASE,
)


_LETTER_AND_TEXT = re.compile(
    rf"(?:{_CALLED}\W{{1,2}})?([a-z])(?:\W{{1,4}}(.+))?\Z", re.IGNORECASE | re.DOTALL
)
_MARKS = re.compile(r"\A[\W_]+")
_ARTICLE = re.compile(r"(?:an?|the) ")
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class MultipleChoice(PromptedTask):
    """The answer is the text of a choice; models name it by letter, by text, or by both."""

    INSTRUCTION: ClassVar[str] = (
        'Choose the best answer. Explain step by step, then name your choice. End with "{closing}"'
    )
    NOUNS: ClassVar[tuple[str, ...]] = ("answer", "choice", "option")
    EXAMPLE: ClassVar[Question | None] = Question(
        id="example",
        question="Where does a washed plate belong?",
        choices=("cupboard", "garden", "letter box"),
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
        """The choice's own text, whether ``answer`` is that text, its letter, or both.

        An answer that merely starts with one of them is none.
        """
        return self._whole(answer, question)

    def unclear(self, text: str, question: Question) -> str:
        """Several choices ("either (a) or (b)"), or a letter with another choice's text."""
        if self._whole(text, question):
            return ""
        said = undress(text)
        listed = _LISTED.match(said)
        if listed and len(self._lettered_all(_MENTIONED.findall(listed[0]), question)) > 1:
            return "several choices are named as the answer"
        if found := self._by_text(said, question):
            joined = _JOINS.match(found[1])
            other = self._by_text(found[1][joined.end() :], question) if joined else None
            if other and other[0] != found[0]:
                return "several choices are named as the answer"
            return ""
        letter = _LETTER.match(said)
        if letter and (own := self._lettered_all([letter.groups()], question)):
            clause = re.split(r"[.,;\n]", said[letter.end() :].strip(" .:)]-–—"), maxsplit=1)[0]
            other = self._exactly(clause, question)
            if other and other not in own:
                return "the letter and the text name different choices"
        return ""

    def read_announced(self, text: str, question: Question) -> str | None:
        """The choice that ``text`` names: by its whole text, its first words, or its letter."""
        if text.strip() == "a":  # an article, where the text was cut off
            return None
        if choice := self._whole(text, question):
            return choice
        said = undress(text)
        found = self._by_text(said, question)
        return found[0] if found else self._by_letter(said, question)

    def read_unannounced(self, text: str, question: Question) -> tuple[str, str] | None:
        """What the text concludes ("C is correct", "so (c)"), else a choice on its own line."""
        parts = [each[:LONGEST_ANSWER] for each in sentences(undress(text))]
        for part in reversed(parts):
            rest = concluded(part)
            said = part if rest is None else rest
            if choice := self._praised(said, question) or self._settled(said, question):
                return choice, part
            if rest is not None and not self.unclear(rest, question):
                short = self._whole(rest, question) or self._by_letter(rest, question)
                named = self._named(part, question)
                if short or len(named) == 1:
                    return short or named.pop(), part
        if parts and len(named := self._named(parts[-1], question)) == 1:
            return named.pop(), parts[-1]
        return self._on_its_own(text, question)

    def _on_its_own(self, text: str, question: Question) -> tuple[str, str] | None:
        """A choice that is the last line, or the first one or its beginning ("C, because ...").

        Not where other lines name other choices: such a text goes through all of them.
        """
        lines = [line[:LONGEST_ANSWER] for line in text.split("\n") if line.strip()]
        whole = [self._whole(line, question) for line in lines]
        begun = [
            choice or self._begun(line, question) for choice, line in zip(whole, lines, strict=True)
        ]
        if len(set(filter(None, begun))) != 1:
            return None
        if choice := whole[-1] or begun[0]:
            return choice, lines[-1] if whole[-1] else lines[0]
        return None

    def _begun(self, line: str, question: Question) -> str | None:
        """The choice that a line begins with, as an answer before its reason."""
        if self.unclear(line, question):
            return None
        said = undress(line)
        found = self._by_text(said, question, articles=False)
        if found:
            return found[0] if _FOLLOWS_TEXT.match(found[1]) else None
        return self._by_letter(said, question)

    def _whole(self, text: str, question: Question) -> str | None:
        """The choice that is all of ``text``: by its text, its letter, or both of them."""
        if choice := self._exactly(text, question):
            return choice
        said = bare(text)
        match = _LETTER_AND_TEXT.match(said)
        if match is None:
            return None
        choice = self._lettered(match[1], question)
        return choice if match[2] is None or choice == self._exactly(match[2], question) else None

    def _exactly(self, text: str, question: Question) -> str | None:
        """The choice whose text this is, but for capitals, blanks and marks around it."""
        spelt = _spellings(question.choices)
        said = squeeze(text)
        if choice := spelt.whole.get(said) or spelt.whole.get(said.rstrip(" .")):
            return choice
        return spelt.bare.get(squeeze(bare(text)))

    def _by_letter(self, text: str, question: Question) -> str | None:
        """The choice whose letter comes first in ``text``."""
        match = _LETTER.match(text)
        return next(iter(self._lettered_all([match.groups()], question)), None) if match else None

    def _by_text(
        self, text: str, question: Question, *, articles: bool = True
    ) -> tuple[str, str] | None:
        """The longest choice that ``text`` starts with, an article aside, and what follows it."""
        start = _MARKS.sub("", squeeze(text), count=1)
        starts = [start]
        if articles and (article := _ARTICLE.match(start)):
            starts.append(start[article.end() :])
        named = [
            (choice, each[len(words) :])
            for choice, words in _spellings(question.choices).undressed
            for each in starts
            if each.startswith(words) and not _WORD.match(each, len(words))
        ]
        return max(named, key=lambda pair: len(pair[0]), default=None)

    def _praised(self, sentence: str, question: Question) -> str | None:
        """The choice that a sentence calls the right one."""
        if match := _PRAISED.match(sentence):
            return next(iter(self._lettered_all([match.groups()], question)), None)
        found = self._by_text(sentence, question)
        return found[0] if found and _PRAISE_AFTER_TEXT.match(found[1]) else None

    def _settled(self, sentence: str, question: Question) -> str | None:
        """The choice whose letter a sentence leaves as the only one."""
        if not (match := _SETTLED.match(sentence)):
            return None
        left = sentence[match.end() :]
        if self.unclear(left, question) or not (choice := self._by_letter(left, question)):
            return None
        return self._exactly(left, question) or choice  # a choice may be the letter of another

    def _named(self, sentence: str, question: Question) -> set[str]:
        """All choices that a sentence names by their letters; none if it may deny them."""
        if _DENIED.search(sentence):
            return set()
        return self._lettered_all(_NAMED.findall(sentence), question)

    def _lettered_all(self, found, question: Question) -> set[str]:
        """The choices of letters, each in one of the groups of a match."""
        letters = (next(filter(None, groups), None) for groups in found)
        return {c for letter in letters if letter and (c := self._lettered(letter, question))}

    def _lettered(self, letter: str, question: Question) -> str | None:
        index = ord(letter.lower()) - ord("a")
        return question.choices[index] if index < len(question.choices) else None


@dataclass(frozen=True, slots=True)
class _Spellings:
    """The choices of a question by their text, by what is left without marks, and without dress.

    ``bare`` leaves out what several choices share.
    """

    whole: dict[str, str]
    bare: dict[str, str]
    undressed: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1024)  # the K samples of a question are read one after the other
def _spellings(choices: tuple[str, ...]) -> _Spellings:
    whole: dict[str, str] = {}
    left: dict[str, set[str]] = {}
    for choice in choices:
        whole.setdefault(squeeze(choice), choice)
        left.setdefault(squeeze(bare(choice)), set()).add(choice)
    return _Spellings(
        whole=whole,
        bare={words: each.pop() for words, each in left.items() if words and len(each) == 1},
        undressed=tuple((each, words) for each in choices if (words := squeeze(undress(each)))),
    )
