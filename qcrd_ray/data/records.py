"""The rows that flow through the pipeline, one schema each.

A :class:`Question` is asked of the teacher, which answers with :class:`Completion` s; parsed and
voted on they become one :class:`RationaleSet`. A :class:`StudentNegative` is what an older snapshot
of the student wrote about a question. The Arrow schemas are what the files in a run folder hold: a
stage reads and writes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa


class Outcome(StrEnum):
    """How an input row ended. Over a run, the five counts add up to the rows that were read."""

    ACCEPTED = "accepted"  # a strict plurality of the parsed completions agrees: there is a vote
    NO_CONSENSUS = "no_consensus"  # parsed, but the best answer is tied
    UNPARSED = "unparsed"  # no completion held an answer
    # fewer than K completions came back after the retries; the next run asks again
    FAILED = "failed"
    REJECTED_INPUT = "rejected_input"  # the row could not be asked: see its reason


# the outcomes of rows whose samples came back
ANSWERED = (Outcome.ACCEPTED, Outcome.NO_CONSENSUS, Outcome.UNPARSED)


class AskedUntil(StrEnum):
    """Why no more samples of a question were asked."""

    ALL_K = "all_k"  # as many as the recipe says
    SETTLED = "settled"  # the vote was certain enough (sampling.adaptive)
    INCOMPLETE = "incomplete"  # a request failed, or returned fewer samples than it was asked for


class Role(StrEnum):
    """What a completion is to the vote of its question."""

    POSITIVE = "positive"  # agrees with the vote
    NEGATIVE = "negative"  # parsed, and disagrees with it: the teacher's minority
    ABSTAINED = "abstained"  # unparsed or cut off by the token limit: it has no vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question as a task read it. ``id`` is the user's own and unique within its split."""

    id: str
    question: str
    choices: tuple[str, ...] = ()
    answer: str | None = None
    rationale: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Question:
        """The question of a row of any file in the run folder.

        A row of questions or of a training set has `id` and `answer`. A row of a rationale set has
        `question_id` and `gold` instead, since its own `id` is that of the request.
        """
        id, answer = ("question_id", "gold") if "question_id" in row else ("id", "answer")
        return cls(
            id=row[id],
            question=row["question"],
            choices=tuple(row["choices"] or ()),
            answer=row.get(answer),
            rationale=row.get("rationale"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sample of the teacher: ``text`` as returned, ``rationale`` and ``answer`` as parsed.

    ``thinking`` is what a reasoning model wrote before its answer, between its marks or in a field
    of its own; ``text`` does not hold it.
    """

    text: str
    finish_reason: str = "stop"
    tokens: int = 0
    rationale: str = ""
    answer: str | None = None
    role: Role = Role.ABSTAINED
    reason: str = ""
    thinking: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RationaleSet:
    """A question with its completions, the vote over them, and the outcome with its reason.

    ``id`` hashes the question and the whole request to the teacher, so it changes whenever the
    answer could; ``question_id`` is the user's. ``samples_asked`` are those of answered requests.
    """

    id: str
    question_id: str
    question: str
    choices: tuple[str, ...] = ()
    gold: str | None = None
    completions: tuple[Completion, ...] = ()
    outcome: Outcome
    reason: str = ""
    vote: str | None = None
    vote_share: float = 0.0
    attempts: int = 0
    samples_asked: int = 0
    asked_until: AskedUntil = AskedUntil.ALL_K

    def row(self) -> dict[str, Any]:
        """The row as plain Python values, in the order of :data:`RATIONALE_SET_SCHEMA`."""
        # not dataclasses.asdict, which copies every value and took a fifth of the time of a vote
        row = {name: getattr(self, name) for name in RATIONALE_SET_SCHEMA.names}
        names = [field.name for field in COMPLETION_TYPE]
        row["completions"] = [
            {name: getattr(completion, name) for name in names} for completion in self.completions
        ]
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentNegative:
    """A rationale that a snapshot of the student sampled for a question of one round.

    ``right`` says whether its answer equals the label that the student is trained on (None: it held
    no answer, or there is no label).
    """

    question_id: str
    round: int
    snapshot: int
    text: str
    answer: str | None = None
    right: bool | None = None
    finish_reason: str = "stop"
    tokens: int = 0


class ScoredAs(StrEnum):
    """What kind of rationale was scored in a round of training."""

    TEACHER_POSITIVE = "teacher_positive"  # agrees with the vote
    TEACHER_MINORITY = "teacher_minority"  # the teacher's, and disagrees with it
    STUDENT = "student"  # an older snapshot of the student wrote it
    CORRUPTED = "corrupted"  # a positive with a wrong step
    EVOLVED = "evolved"  # a positive for the same question with other numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRationale:
    """A rationale with the discriminator's score in a round of training.

    ``right`` is that of a :class:`StudentNegative`, None for other kinds.
    """

    question_id: str
    question: str
    scored_as: ScoredAs
    text: str
    score: float
    right: bool | None = None


COMPLETION_TYPE = pa.struct(
    [
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
        ("rationale", pa.string()),
        ("answer", pa.string()),
        ("role", pa.string()),
        ("reason", pa.string()),
        ("thinking", pa.string()),  # null in rows written before there was this column
    ]
)

QUESTION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("rationale", pa.string()),
    ]
)

RATIONALE_SET_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("completions", pa.list_(COMPLETION_TYPE)),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("vote", pa.string()),
        ("vote_share", pa.float64()),
        ("attempts", pa.int32()),
        ("samples_asked", pa.int32()),
        ("asked_until", pa.string()),
    ]
)

STUDENT_NEGATIVE_SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("round", pa.int32()),
        ("snapshot", pa.int32()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("right", pa.bool_()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
    ]
)

SCORED_RATIONALE_SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("scored_as", pa.string()),
        ("text", pa.string()),
        ("score", pa.float32()),
        ("right", pa.bool_()),
    ]
)
