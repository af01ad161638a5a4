"""What the endpoint takes and gives. Wrong input is answered with what was expected; what was sent is never echoed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from qcrd_ray.records import Question

MAX_BODY_BYTES = 1 << 20
MAX_QUESTIONS = 64  # in one request


class Query(BaseModel):
    """One question. ``quality`` scores the rationale, so it has one written."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, description="the question alone, without a prefix")
    choices: list[Annotated[str, Field(max_length=2_000)]] = Field([], max_length=26, description="for multiple choice")
    rationale: bool = Field(False, description="also write the reasoning, and read its own answer out of it")
    quality: bool = Field(False, description="also score the reasoning with the discriminator, 0 to 1")

    def as_question(self) -> Question:
        return Question(id="request", question=self.question, choices=tuple(self.choices))


Queries = Annotated[list[Query], Field(min_length=1, max_length=MAX_QUESTIONS)]
Body = Annotated[
    Annotated[Query, Tag("question")] | Annotated[Queries, Tag("list")],
    Discriminator(lambda body: "list" if isinstance(body, list) else "question"),
]


class Prediction(BaseModel):
    """The student's answer. ``label`` is null where ``text``, what the label head wrote, holds no answer of this task."""

    label: str | None
    text: str
    rationale: str | None = Field(None, description="the reasoning; null where it was not asked for")
    rationale_answer: str | None = Field(None, description="the answer that the reasoning ends in; it may differ from the label")
    quality: float | None = Field(None, description="the discriminator's score of the reasoning")


def explain_errors(errors: list[dict[str, Any]]) -> list[dict[str, str]]:
    """pydantic's errors as {"where", "expected"}; the input, which may hold what no answer can carry, stays out of it."""
    return [{"where": ".".join(str(part) for part in error["loc"]), "expected": error["msg"]} for error in errors]
