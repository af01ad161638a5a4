"""The request and response bodies of POST /v1/predict."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from qcrd_ray.data.records import Question
from qcrd_ray.inference.vote_result import VoteKind, VoteResult

MAX_SAMPLES = 64  # of one question
COLDEST = 0.01  # a lower temperature overflows the logits, and samples nothing but the greedy text
Choices = Annotated[list[Annotated[str, Field(max_length=2_000)]], Field(max_length=26)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Query(BaseModel):
    """One question. ``quality`` scores the rationale, so it has one written."""

    # strict: "3" and true are no numbers, as the schema of the endpoint says
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

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
    vote: VoteKind | None = Field(
        default=None,
        description=(
            "plain: all samples weigh the same; judged: each weighs what the student folder's"
            " judge gives it. By default judged where the folder holds a judge"
        ),
    )
    temperature: float | None = Field(
        default=None,
        ge=COLDEST,
        le=2.0,
        description=(
            "of the samples, by default what the judge was trained with, or 0.7 without one; label"
            " and rationale are always greedy"
        ),
    )
    top_p: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="of the samples, by default what the judge was trained with, or 1",
    )
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
    | Annotated[Annotated[list[Query], Field(min_length=1, fail_fast=True)], Tag(_SEVERAL)],
    Discriminator(lambda body: _SEVERAL if isinstance(body, list) else _ONE),
]


class VoterResponse(BaseModel):
    """A sample of a vote.

    ``answer`` is null where it votes for none; ``score`` is null in a plain vote.
    """

    text: str
    answer: str | None
    weight: float = Field(description="its share of the weights of all samples")
    score: float | None = Field(description="the judge's chance that it ends in the right answer")
    tokens: int = Field(description="how many were generated for it")


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
            "the answer that wins the vote; null without samples, where none holds an answer, and"
            " at a tie of a plain vote"
        ),
    )
    vote_kind: VoteKind | None = Field(
        default=None, description="which vote it was: plain or judged"
    )
    vote_rationale: str | None = Field(
        default=None,
        description="the reasoning of the winner's best-scored sample (plain: of its first one)",
    )
    confidence: float | None = Field(
        default=None,
        description=(
            "plain: the share of all samples that gave the vote; a sample that was cut off, or that"
            " holds no answer, votes for none and is counted among all. Judged: the calibrated"
            " share of the weights, the chance that the vote is right. It is not `vote_share` of a"
            " rationale set, which is the share of the votes cast"
        ),
    )
    votes: dict[str, int] | None = Field(
        default=None, description="how many samples gave each answer"
    )
    shares: dict[str, float] | None = Field(
        default=None, description="the share of the weights that each answer has"
    )
    samples: list[VoterResponse] | None = Field(
        default=None, description="the samples that voted, in the order in which they were drawn"
    )
    question_cut: bool = Field(
        default=False,
        description="the question is longer than the student reads, and its end was not read",
    )

    def add_vote(self, result: VoteResult) -> None:
        """Fill in the fields of a vote."""
        self.vote, self.vote_kind = result.answer, result.kind
        self.vote_rationale, self.confidence = result.rationale, result.confidence
        self.votes, self.shares = result.votes, result.shares
        self.samples = [
            VoterResponse(
                text=voter.sample.text,
                answer=voter.answer,
                weight=voter.weight,
                score=voter.score,
                tokens=voter.sample.tokens,
            )
            for voter in result.voters
        ]


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
            "samples": 8,
        }
    },
    "several questions": {
        "value": [
            {"question": "Tom has 3 apples and buys 4 more. How many apples has he now?"},
            {"question": "Where would you keep a book?", "choices": ["shelf", "oven", "pond"]},
        ]
    },
}
