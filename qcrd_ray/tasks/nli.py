"""Natural-language inference (e-SNLI, ANLI).

Does a premise entail a hypothesis, contradict it, or neither?
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.prompting import PromptedTask

LABELS = ("entailment", "neutral", "contradiction")

# How each label is said. Tried in this order, so that "not possible to tell" and "does not entail"
# are not taken for no or yes.
_UNSURE = (
    r"neutral|undetermined|inconclusive|unknown|uncertain|maybe|not enough information|not"
    r" necessarily|"
    r"(?:it |it is |it's |is )?(?:not possible|impossible|cannot|can't|can not|unable)(?: to)?(?:"
    r" be)? (?:tell|say|know|determined?)|"
    r"does not (?:necessarily )?(?:entail|imply)"
)
_WORDINGS = tuple(
    (label, re.compile(rf"\A\W*(?:an? |the |that )?(?:{words})", re.IGNORECASE))
    for label, words in (
        ("neutral", _UNSURE),
        ("contradiction", r"contradict\w*|no\b|false\b"),
        ("entailment", r"entail\w*|yes\b|true\b"),
    )
)


@dataclass(frozen=True)
class NaturalLanguageInference(PromptedTask):
    """The answer is entailment, neutral or contradiction.

    It may also be worded as yes, "it is not possible to tell", or no.
    """

    INSTRUCTION: ClassVar[str] = (
        "Does the premise entail the hypothesis (entailment), contradict it (contradiction), or"
        ' neither (neutral)? Explain step by step, then name the label. End with "{closing}"'
    )

    NOUNS: ClassVar[tuple[str, ...]] = ("answer", "label", "relationship", "relation")

    def describe_answer(self, question: Question) -> str:
        return f"one of {', '.join(LABELS)}"

    def canonical(self, answer: str, question: Question) -> str | None:
        return next((label for label, words in _WORDINGS if words.match(answer.strip())), None)
