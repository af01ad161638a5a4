"""Questions whose answer is a number: SVAMP, GSM8K, and the built-in word problems."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.answers import (
    LONGEST_EXCERPT,
    announcement_pattern,
    clean,
    concluded,
    cut_run_on,
    excerpt,
    find_announcements,
    rationale_without,
)
from qcrd_ray.tasks.asked import SENTENCE_END, WORD, Asked, Given, read_asked
from qcrd_ray.tasks.base import Parsed
from qcrd_ray.tasks.number_words import find_words
from qcrd_ray.tasks.numbers import Found, plain, spell, spot_numbers
from qcrd_ray.tasks.prompting import PromptedTask

_ANNOUNCED = announcement_pattern("answer")
_EQUALS = re.compile(r"=|\bequals?\b(?: to)?")
# Between two numbers neither of which is the answer by itself: a list, a range, an operation.
_JOINED = re.compile(
    r"\s?%?\s*(?:(?:\w+ )?\bor\b|\bto\b|\band\b|&|[-−–—+*×·÷/x^]|\*\*"
    r"|(?:divided by|times|plus|minus)\b)"
    r"\s*(?:another |also )?[$€£¥]?",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<=\S )\([^()]*[-+*/=×÷][^()]*\)(?!\s*=)")  # a computation in brackets
_REASON = re.compile(r"\b(?:since|because)\b", re.IGNORECASE)
_BRACKETED = re.compile(r"\s*\([^()]*\)[.!]?\s*\Z")
_MEANS = re.compile(r"\W*(?:that|this|which) means\b|\W*(?:altogether|finally|in total)\b", re.I)
_HAS_DIGIT = re.compile(r"[0-9]")
_NEXT_WORD = re.compile(r"[*_ ]*([A-Za-z]*)")
_AND = re.compile(r"(?: [A-Za-z-]+){1,5} and ")  # from one of two parts to the other
# "... so the answer is correct": a judgement, and no answer
_JUDGED = re.compile(r"\W*(?:indeed )?(?:correct|right|wrong|incorrect)\b(?!\W*\d)", re.IGNORECASE)
# "... so the answer is unknown", "the answer cannot be determined": what came before is no answer
_NONE = re.compile(
    r"\W*(?:un(?:known|determined|defined|clear|certain|answerable)|indeterminate|determined"
    r"|not (?:known|clear|given|stated|specified|provided|possible|enough)|(?:impossible|unable) to"
    r"|n/?a\b)",
    re.IGNORECASE,
)
# Where a text goes on after its answer: to check it or to remark on it.
_CHECK = re.compile(
    r"\W*(?:(?:to|let['’]?s|let us|we|you|i)\b(?: (?:can|could|may|also|now|will|then))*"
    r" (?:double[- ])?(?:check|verify|confirm)\b|check(?:ing)?:"
    r"|it(?:['’]s| is)(?: also)? (?:worth|important to) (?:mention|not)"
    r"|(?:please )?note(?: that\b|:)"
    r"|however,? if (?:you|we)\b)",
    re.IGNORECASE,
)
_LIST_GOES_ON = re.compile(r"\s*(?:,|\band\b|\bor\b|[.!]?\s*\Z)")
_LIKE_A_GROUP = re.compile(r"\A-?[1-9][0-9]{0,2}\.[0-9]{3}\Z")


@dataclass(frozen=True)
class Arithmetic(PromptedTask):
    """A numeric answer.

    Numbers are compared as numbers: 32.0, "32 apples" and $32 are all "32"; a percentage is its
    number.
    """

    INSTRUCTION: ClassVar[str] = (
        'Solve the problem. Explain step by step, then give the number. End with "{closing}"'
    )
    EXAMPLE: ClassVar[Question | None] = Question(
        id="example", question="Tom has 3 apples and buys 4 more. How many apples has he now?"
    )

    def describe_answer(self, question: Question) -> str:
        return "one number"

    def canonical(self, answer: str, question: Question) -> str | None:
        """The number in ``answer``.

        It is what follows ``####`` or the last ``=``, if that holds exactly one number.
        """
        said = plain(answer).rsplit("####", 1)[-1].rsplit("=", 1)[-1]
        numbers = spot_numbers(said, self.recipe.decimal) or find_words(said)
        value = numbers[0][2] if len(numbers) == 1 else None
        return None if value is None else self._spell(value)

    def label(self, answer: str, question: Question) -> str:
        return answer.replace(".", ",") if self.recipe.decimal == "comma" else answer

    def explanation(self, rationale: str, answer: str, question: Question) -> str:
        return super().explanation(rationale, Arithmetic.label(self, answer, question), question)

    def parse(self, text: str, question: Question) -> Parsed:
        """The announced number, else the one that the last sentence with a number states.

        The rationale comes back without LaTeX. Where that number cannot be read for sure, the text
        is unread: an earlier number would be another one.
        """
        kept = plain(cut_run_on(text, question.question))
        if not kept:
            return Parsed(reason="the completion is empty")
        asked = read_asked(question.question, self.recipe.decimal)
        for announcement in find_announcements(kept, self.recipe.closing, _ANNOUNCED):
            sentence = SENTENCE_END.split(announcement.text, maxsplit=1)[0]
            if _JUDGED.match(sentence):
                continue
            stated = self._stated(sentence, asked) or _worded(sentence)
            if stated is None and _NONE.match(sentence):
                return _no_answer(kept, announcement.text)
            if stated:
                return self._read(
                    self._summed(stated, kept, asked),
                    rationale_without(kept, announcement),
                    excerpt(kept, announcement),
                )
        sentences = self._by_weight(SENTENCE_END.split(kept), asked)
        for sentence in sentences:
            stated = self._stated(sentence, asked)
            if stated is None and concluded(sentence) is not None:
                stated = _worded(sentence)
            if stated:
                if asked.others and stated.counts in asked.others:
                    sentence, stated = self._counted(sentences, asked) or (sentence, stated)
                return self._read(
                    self._summed(stated, kept, asked),
                    clean(kept),
                    " ".join(sentence.split())[:LONGEST_EXCERPT],
                )
        return Parsed(rationale=clean(kept), reason="no number in the completion")

    def _counted(self, sentences: list[str], asked: Asked) -> tuple[str, Stated] | None:
        """The first sentence whose result counts what the question asks for, with that result.

        A text may count something else after it answered ("He needs 29 planks. So he needs 593
        nails."), or sum up both.
        """
        for sentence in sentences:
            stated = self._stated(sentence, asked)
            if (
                stated
                and stated.value is not None
                and stated.value not in asked.given
                and stated.counts.removesuffix("s") == asked.counted
            ):
                return sentence, stated
        return None

    def _summed(self, stated: Stated, text: str, asked: Asked) -> Stated:
        """What is stated, or its sum with the part that follows, where both are asked for together.

        "So there are 6 red and 16 green peaches" answers how many there are of both, if the text
        says the sum as well.
        """
        if asked.together and stated.value is not None and (part := _AND.match(stated.after)):
            numbers = spot_numbers(stated.after, self.recipe.decimal)
            if numbers and numbers[0][0] == part.end() and numbers[0][2] is not None:
                both = stated.value + numbers[0][2]
                if both in self._values(text):
                    return Stated(both, stated.said + stated.after[: numbers[0][1]])
        return stated

    def _by_weight(self, sentences: list[str], asked: Asked) -> list[str]:
        """The sentences, the likeliest to state the answer first: one that comes before its own
        explanation, then those with a number of their own, the last one first.
        """
        foretold = self._foretold(sentences, asked)
        ordered = _last_first(sentences, asked.words)
        ordered.sort(key=lambda each: not self._says_more(each, asked.given))
        return [foretold, *ordered] if foretold else ordered

    def _says_more(self, sentence: str, given: Given) -> bool:
        """Whether it may state a result: not where it only repeats numbers of the question."""
        return (
            "=" in sentence
            or concluded(sentence) is not None
            or _MEANS.match(sentence) is not None
            or any(value not in given for value in self._values(sentence) if value is not None)
        )

    def _foretold(self, sentences: list[str], asked: Asked) -> str | None:
        """The first sentence, if it answers the question before the text explains it, or None.

        It repeats much of what is asked, and the text then computes its number ("Kim has 8 left.
        She had 20 and gave 12: 20 - 12 = 8."), checks it or repeats it at the end. What follows
        that is a remark, unless it goes on to compute with that number.
        """
        opening = sentences[0]
        if _EQUALS.search(opening) or _shared(opening, asked.words) < 0.4 * len(asked.words):
            return None
        stated = self._stated(opening, asked)
        if stated is None or stated.value is None or stated.value in asked.given:
            return None
        last = next(each for each in reversed(sentences) if _HAS_DIGIT.search(each))
        confirmed = False
        for sentence in sentences[1:]:
            later = self._stated(sentence, asked)
            if later is None:
                continue
            if later.value == stated.value:
                confirmed = confirmed or "=" in sentence
            elif "=" in sentence and stated.value in self._values(sentence):
                if later.value in asked.given:  # "20 - 8 = 12": a check
                    confirmed = True
                elif confirmed:  # computed with, it was a step
                    return None
            elif sentence is last and stated.value in self._values(sentence):
                confirmed = True
            elif (
                concluded(sentence) is not None
                and _shared(sentence, asked.words) > len(asked.words) / 2
            ):
                return None
        return opening if confirmed else None

    def _values(self, sentence: str) -> list[Fraction | None]:
        return [value for _, _, value in spot_numbers(sentence, self.recipe.decimal)]

    def _read(self, stated: Stated, rationale: str, source: str) -> Parsed:
        if stated.value is None:
            return Parsed(
                rationale=rationale, reason=f"no one number can be read for sure in {stated.said!r}"
            )
        return Parsed(rationale=rationale, answer=self._spell(stated.value), source=source)

    def _spell(self, value: Fraction) -> str:
        """The number's one spelling; with a decimal comma, 1.234 would be a thousand: 1.2340."""
        text = spell(value)
        return f"{text}0" if self.recipe.decimal == "comma" and _LIKE_A_GROUP.search(text) else text

    def _stated(self, sentence: str, asked: Asked) -> Stated | None:
        """The number that a sentence states as its result; None: it holds none.

        That is what follows its last ``=`` or "equals". Without one it is the first number that
        the question did not give ("so 26 rounds were played to score 78 points"), as most answers
        are computed, and the one that says "more" where that is asked ("8 left, which is 5 more
        than stayed"); where the question gave them all, the first.
        """
        said = sentence
        if "(" in sentence:  # "26 rounds (= 78 / 3)"
            sentence = _ASIDE.sub(lambda match: " " * len(match[0]), said)
        numbers = spot_numbers(sentence, self.recipe.decimal)
        if reason := _REASON.search(sentence):  # "3 games, since 7 x 3 = 21"
            before = [each for each in numbers if each[1] <= reason.start()]
            if before:
                numbers, sentence = before, sentence[: reason.start()]
        if not numbers and sentence is not said:
            sentence = said
            numbers = spot_numbers(said, self.recipe.decimal)
        if not numbers:
            return None
        equals = [match.end() for match in _EQUALS.finditer(sentence)]
        places = [
            place for place, (start, *_) in enumerate(numbers) if equals and start >= equals[-1]
        ]
        if not places:
            places = [
                place
                for place, (start, end, value) in enumerate(numbers)
                if (sentence[start:end] if value is None else value) not in asked.given
            ]
            if asked.compared and len(places) > 1:
                words = [_next_word(sentence, numbers[place][1]) for place in places]
                if words[0] and asked.compared in words:  # the first counts something else
                    places = [places[words.index(asked.compared)]]
        return _alone(sentence, numbers, places[0] if places else 0)


def _last_first(sentences: list[str], asked: frozenset[str]) -> list[str]:
    """The sentences of a text that announces nothing, the last one first.

    But for what follows a finished answer: a check of it, a remark in brackets. And the last
    conclusion ("So ...") comes first where it repeats more of the question.

    Args:
        asked: the words of the question's last sentence.
    """
    end = len(sentences)
    for place, sentence in enumerate(sentences):
        if _CHECK.match(sentence) and any(map(_HAS_DIGIT.search, sentences[:place])):
            end = place
            break
    aside = [each for each in sentences[:end] if _BRACKETED.match(each)]
    main = [each for each in sentences[:end] if each not in aside and _HAS_DIGIT.search(each)]
    concluding = [each for each in sentences[:end] if concluded(each) is not None]
    if concluding and (
        not main
        or (
            ("=" not in main[-1] and not _MEANS.match(main[-1]))
            and _shared(concluding[-1], asked) > _shared(main[-1], asked)
        )
    ):
        main.append(concluding[-1])
    return [*reversed(main), *aside, *reversed(sentences[end:])]


def _shared(sentence: str, asked: frozenset[str]) -> int:
    return len(asked.intersection(WORD.findall(sentence.lower())))


@dataclass(frozen=True, slots=True)
class Stated:
    """A number that a text states in the words ``said``; None: it cannot be read for sure."""

    value: Fraction | None
    said: str
    after: str = ""  # the rest of the sentence

    @property
    def counts(self) -> str:
        """The word that follows, mostly what there are so many of."""
        return _next_word(self.after, 0)


def _no_answer(text: str, said: str) -> Parsed:
    """A text that ends in no answer, whatever it computed before."""
    shown = " ".join(said.split())[:LONGEST_EXCERPT]
    return Parsed(rationale=clean(text), reason=f"it says that there is no answer: {shown!r}")


def _worded(sentence: str) -> Stated | None:
    """The first number that an announcement gives in words."""
    words = find_words(sentence)
    return _alone(sentence, words, 0) if words else None


def _alone(sentence: str, numbers: list[Found], place: int) -> Stated:
    """The number at ``place``, without a value where it is half of something: "5 or 6", "5-6"."""
    start, end, value = numbers[place]
    if place + 1 < len(numbers):
        next_start, next_end, next_value = numbers[place + 1]
        between = sentence[end:next_start]
        listed = between.strip() == "," and _LIST_GOES_ON.match(sentence, next_end)
        if next_value != value and (listed or _JOINED.fullmatch(between)):
            return Stated(None, sentence[start:next_end])
    if place:
        before_start, before_end, before_value = numbers[place - 1]
        if before_value != value and _JOINED.fullmatch(sentence[before_end:start]):
            return Stated(None, sentence[before_start:end])
    return Stated(value, sentence[start:end], sentence[end:])


def _next_word(text: str, start: int) -> str:
    """The word at ``start``, in lower case; empty behind a mark or at the end."""
    match = _NEXT_WORD.match(text, start)
    return match[1].lower() if match else ""
