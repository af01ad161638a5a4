"""Natural-language inference (e-SNLI, ANLI).

Does a premise entail a hypothesis, contradict it, or neither?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.labels import LabelledTask

LABELS = ("entailment", "neutral", "contradiction")

_UNSURE = (
    r"neutral|neither|undetermined|inconclusive|unknown|uncertain|unclear|maybe|not enough"
    r" information|insufficient information|not necessarily|"
    r"(?:not possible|impossible|cannot|can't|can’t|can not|unable)(?: to)?(?:"
    r" be)? (?:tell|say|know|determined?)|"
    r"does(?: not|n't|n’t) (?:necessarily )?(?:entail|imply)"
)


@dataclass(frozen=True)
class NaturalLanguageInference(LabelledTask):
    """The answer is entailment, neutral or contradiction.

    It may also be worded as yes, "it is not possible to tell", or no.
    """

    INSTRUCTION: ClassVar[str] = (
        "Does the premise entail the hypothesis (entailment), contradict it (contradiction), or"
        ' neither (neutral)? Explain step by step, then name the label. End with "{closing}"'
    )

    NOUNS: ClassVar[tuple[str, ...]] = ("answer", "label", "relationship", "relation")
    EXAMPLE: ClassVar[Question | None] = Question(
        id="example",
        question="Premise: A man rides a red bicycle to work.\nHypothesis: The man is asleep.",
    )

    # the unsure ones first, so that "not possible to tell" and "does not entail" are no yes or no
    LABELS: ClassVar[dict[str, str]] = {
        "neutral": _UNSURE,
        "contradiction": r"contradict\w*|no|false",
        "entailment": r"entail\w*|yes|true",
    }

    def describe_answer(self, question: Question) -> str:
        return f"one of {', '.join(LABELS)}"
