"""The request and response bodies of POST /v1/predict."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from qcrd_ray.data.records import Question

MAX_SAMPLES = 64  # of one question
Choices = Annotated[list[Annotated[str, Field(max_length=2_000)]], Field(max_length=26)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Query(BaseModel):
    """One question. ``quality`` scores the rationale, so it has one written."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    question: str = Field(min_length=1, description="the question alone, without a prefix")
    choices: Choices = Field(default=[], description="for multiple choice")
    rationale: bool = Field(
        default=False, description="also write the reasoning, and read its own answer out of it"
    )
    quality: bool = Field(
        default=False, description="also score the reasoning with the discriminator, 0 to 1"
    )
    samples: int | None = Field(
        default=None,
        ge=2,
        le=MAX_SAMPLES,
        description="self-consistency: also sample so many rationales and let them vote",
    )
    temperature: float = Field(
        default=0.7,
        gt=0.0,
        le=2.0,
        description="of the samples; label and rationale are always greedy",
    )
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="of the samples")
    seed: Seed = Field(
        default=0, description="of the samples: the same question and seed give the same vote"
    )

    def as_question(self) -> Question:
        """The query as a question for the student."""
        return Question(id="request", question=self.question, choices=tuple(self.choices))


# no identifiers, so that no error shows them as keys
_ONE, _SEVERAL = "one question", "several questions"
Body = Annotated[
    Annotated[Query, Tag(_ONE)]
    | Annotated[Annotated[list[Query], Field(min_length=1)], Tag(_SEVERAL)],
    Discriminator(lambda body: _SEVERAL if isinstance(body, list) else _ONE),
]


class PredictResponse(BaseModel):
    """The student's answer.

    ``label`` is null where ``text``, what the label head wrote, holds no answer of this task.
    """

    label: str | None
    text: str
    rationale: str | None = Field(
        default=None, description="the reasoning; null where it was not asked for"
    )
    rationale_answer: str | None = Field(
        default=None,
        description="the answer that the reasoning ends in; it may differ from the label",
    )
    quality: float | None = Field(
        default=None, description="the discriminator's score of the reasoning"
    )
    vote: str | None = Field(
        default=None,
        description=(
            "the answer of most samples; null without samples, at a tie, and where none holds an"
            " answer"
        ),
    )
    confidence: float | None = Field(
        default=None,
        description=(
            "the share of all samples that gave the vote; a sample that was cut off, or that holds"
            " no answer, votes for none and is counted among all. It is not `vote_share` of a"
            " rationale set, which is the share of the votes cast"
        ),
    )
    votes: dict[str, int] | None = Field(
        default=None, description="how many samples gave each answer"
    )
    question_cut: bool = Field(
        default=False,
        description="the question is longer than the student reads, and its end was not read",
    )


EXAMPLES = {
    "a label": {
        "value": {"question": "Tom has 3 apples and buys 4 more. How many apples has he now?"}
    },
    "with rationale and quality": {
        "value": {
            "question": "Tom has 3 apples and buys 4 more. How many apples has he now?",
            "rationale": True,
            "quality": True,
        }
    },
    "self-consistency": {
        "value": {
            "question": "Tom has 3 apples and buys 4 more. How many apples has he now?",
            "samples": 5,
            "temperature": 0.7,
        }
    },
    "several questions": {
        "value": [
            {"question": "Tom has 3 apples and buys 4 more. How many apples has he now?"},
            {"question": "Where would you keep a book?", "choices": ["shelf", "oven", "pond"]},
        ]
    },
}
