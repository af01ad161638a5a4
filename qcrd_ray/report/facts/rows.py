"""The rows of a split, from reading to the vote: how many went which way, how sure the votes are, and how often they are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import pyarrow.parquet as pq

from qcrd_ray.method.scoring import Accuracy, accuracy
from qcrd_ray.rationales.store import Store
from qcrd_ray.recipe import Recipe
from qcrd_ray.records import Outcome, Question, Role
from qcrd_ray.run_folder import RunFolder
from qcrd_ray.tasks import build_task

BINS = 10
_COLUMNS = [
    *("question_id", "question", "choices", "gold", "outcome", "vote", "vote_share"),
    *(f"completions.list.element.{name}" for name in ("role", "tokens", "finish_reason")),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """``outcomes`` of the finished rows, with ``pending`` those not asked yet: together they are all rows ``read``.

    ``votes`` holds a pair for each accepted row: the vote's share, and whether it is right (None: no gold answer).
    """

    split: str
    read: int
    pending: int
    outcomes: dict[Outcome, int]
    roles: dict[Role, int]
    truncated: int
    tokens: int
    votes: list[tuple[float, bool | None]]

    @property
    def steps(self) -> list[tuple[str, int]]:
        """The funnel: each step and how many rows reached it."""
        out = self.outcomes
        asked = self.read - self.pending - out[Outcome.REJECTED_INPUT]
        answered = asked - out[Outcome.FAILED]
        parsed = answered - out[Outcome.UNPARSED]
        return [
            ("read", self.read),
            ("asked", asked),
            ("answered", answered),
            ("parsed", parsed),
            ("voted", parsed - out[Outcome.NO_CONSENSUS]),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The votes with a share in (low, high]; ``measured`` is how often they are right, None where no gold answer tells."""

    low: float
    high: float
    right: int
    wrong: int
    unknown: int
    measured: Accuracy | None


def read_rows(recipe: Recipe, folder: RunFolder, split: str) -> Rows | None:
    """The rows of ``split``; None: its questions have not been read for the teacher."""
    store = Store(folder.rationales(split))
    if not store.asks.exists():
        return None
    asked = pq.read_metadata(store.asks).num_rows
    rejected = pq.read_metadata(folder.rejected(split)).num_rows if folder.rejected(split).exists() else 0
    task = build_task(recipe.task)
    outcomes, roles = Counter(dict.fromkeys(Outcome, 0)), Counter(dict.fromkeys(Role, 0))
    truncated = tokens = 0
    votes: list[tuple[float, bool | None]] = []
    for table in store.tables(_COLUMNS):
        for row in table.to_pylist():
            outcomes[Outcome(row["outcome"])] += 1
            for completion in row["completions"]:
                roles[Role(completion["role"])] += 1
                tokens += completion["tokens"]
                truncated += completion["finish_reason"] == "length"
            if row["outcome"] == Outcome.ACCEPTED:
                votes.append((row["vote_share"], _right(row, task)))
    pending = asked - outcomes.total()
    outcomes[Outcome.REJECTED_INPUT] += rejected
    return Rows(
        split=split,
        read=asked + rejected,
        pending=pending,
        outcomes=dict(outcomes),
        roles=dict(roles),
        truncated=truncated,
        tokens=tokens,
        votes=votes,
    )


def bins(votes: Sequence[tuple[float, bool | None]]) -> list[Bin]:
    """The votes in ten bins of their share; empty bins at either end are left out."""
    members: list[list[tuple[float, bool | None]]] = [[] for _ in range(BINS)]
    for share, right in votes:
        members[max(1, ceil(share * BINS - 1e-9)) - 1].append((share, right))
    found = [_bin(index, each) for index, each in enumerate(members)]
    filled = [index for index, each in enumerate(found) if each.right + each.wrong + each.unknown]
    return found[filled[0] : filled[-1] + 1] if filled else []


def _bin(index: int, members: list[tuple[float, bool | None]]) -> Bin:
    told = Counter(right for _, right in members)
    known = told[True] + told[False]
    return Bin(
        low=index / BINS,
        high=(index + 1) / BINS,
        right=told[True],
        wrong=told[False],
        unknown=told[None],
        measured=accuracy(told[True], known) if known else None,
    )


def _right(row: dict, task) -> bool | None:
    if row["gold"] is None:
        return None
    question = Question(id=row["question_id"], question=row["question"], choices=tuple(row["choices"] or ()), answer=row["gold"])
    return task.canonical(row["gold"], question) == row["vote"]
