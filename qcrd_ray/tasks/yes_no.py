"""Questions answered by yes or no: BoolQ, StrategyQA and their like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.labels import LabelledTask


@dataclass(frozen=True)
class YesNo(LabelledTask):
    """The answer is yes or no; it may be worded as true or false, or correct or incorrect."""

    INSTRUCTION: ClassVar[str] = (
        'Answer yes or no. Explain step by step, then answer. End with "{closing}"'
    )
    NOUNS: ClassVar[tuple[str, ...]] = ("answer", "statement", "claim", "conclusion")
    EXAMPLE: ClassVar[Question | None] = Question(
        id="example", question="Can a whale breathe under water?"
    )
    LABELS: ClassVar[dict[str, str]] = {
        "yes": "yes|yeah|yep|true|correct|affirmative|y",
        "no": "no|nope|false|incorrect|untrue|not true|not correct|negative|n",
    }
