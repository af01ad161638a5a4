"""What an evaluation measured, read back: accuracies, models on the same questions, both heads."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow.parquet as pq

from qcrd_ray.evaluation import Paired, pair
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA
from qcrd_ray.evaluation.votes import vote_name
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.results import ResultRow, Results

Key = tuple[str, str, str]  # name, head, split
GREEDY = ("label", "rationale")  # the heads, where the others are votes of samples


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """One model's answer to one question.

    ``text`` is None for a teacher's vote; ``confidence`` is that of a student's vote.
    """

    answer: str | None
    gold: str
    right: bool
    text: str | None
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an evaluation left in the run folder.

    ``results`` is results.json. ``answers`` holds every prediction: (name, head, split) -> question
    id -> answer.
    """

    results: Results
    answers: dict[Key, dict[str, GivenAnswer]]

    @property
    def splits(self) -> list[str]:
        """The test splits that were measured."""
        return list(dict.fromkeys(row["split"] for row in self.results["rows"]))

    @property
    def baselines(self) -> list[str]:
        """The objectives that were trained and measured beside the run's own."""
        names = dict.fromkeys(row["name"] for row in self.results["rows"])
        return [name for name in names if not name.startswith(("student", "teacher"))]

    def heads(self, name: str) -> list[str]:
        """The heads that a model was measured by."""
        return list(
            dict.fromkeys(row["head"] for row in self.results["rows"] if row["name"] == name)
        )

    @property
    def samples(self) -> int:
        """How many samples of the student vote on a question; 0: none."""
        plain = [head for head in self.heads("student") if head.startswith("vote of ")]
        return int(plain[0].removeprefix("vote of ")) if plain else 0

    @property
    def judged_vote(self) -> str | None:
        """The head of the vote that the student's own judge weighs, None without one."""
        return vote_name("judged vote", self.samples) if self.samples else None

    def row(self, name: str, head: str, split: str) -> ResultRow | None:
        """A row of the results, None where that was not measured."""
        wanted = (name, head, split)
        return next(
            (
                row
                for row in self.results["rows"]
                if (row["name"], row["head"], row["split"]) == wanted
            ),
            None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models (name, head) on one split."""

    split: str
    first: tuple[str, str]
    second: tuple[str, str]
    counts: Paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many questions both heads of a model answered alike, and which head was right."""

    name: str
    split: str
    total: int
    alike: int
    alike_right: int
    only_label_right: int
    only_rationale_right: int


def read_measured(folder: RunFolder) -> Measured | None:
    """The evaluation, None where there has been none."""
    results, predictions = (
        folder.evaluation / "results.json",
        folder.evaluation / "predictions.parquet",
    )
    if not (results.exists() and predictions.exists()):
        return None
    answers: dict[Key, dict[str, GivenAnswer]] = {}
    for row in pq.read_table(predictions, schema=PREDICTION_SCHEMA).to_pylist():
        answer = GivenAnswer(
            **{name: row[name] for name in ("answer", "gold", "right", "text", "confidence")}
        )
        answers.setdefault((row["name"], row["head"], row["split"]), {})[row["question_id"]] = (
            answer
        )
    return Measured(results=json.loads(results.read_text()), answers=answers)


def opponents(measured: Measured) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """The pairs (student's head, opponent's head) to compare, each as (name, head).

    The opponents are the same head of every baseline and of the base (a baseline's only head where
    it has one), and the student's other head; of its judged vote, the plain vote of the same
    samples and the greedy rationale.
    """
    pairs, heads = [], [head for head in measured.heads("student") if head in GREEDY]
    for name in (*measured.baselines, "student base"):
        theirs = measured.heads(name)
        for head in heads:
            if theirs:
                pairs.append((("student", head), (name, head if head in theirs else theirs[0])))
    if len(heads) > 1:
        pairs.append((("student", "rationale"), ("student", "label")))
    if judged := measured.judged_vote:
        plain = vote_name("vote", measured.samples)
        pairs += [(("student", judged), ("student", head)) for head in ("rationale", plain)]
    return pairs


def comparisons(measured: Measured) -> list[Comparison]:
    """All of :func:`opponents`, on every split that has both."""
    found = []
    for split in measured.splits:
        for first, second in opponents(measured):
            one, other = (
                measured.answers.get((*first, split)),
                measured.answers.get((*second, split)),
            )
            if one and other:
                counts = pair(
                    {id: a.right for id, a in one.items()}, {id: a.right for id, a in other.items()}
                )
                found.append(Comparison(split=split, first=first, second=second, counts=counts))
    return found


def agreements(measured: Measured) -> list[Agreement]:
    """The agreement of each model that has both heads. Two missing answers do not agree."""
    found = []
    for name, head, split in measured.answers:
        if head != "label" or (name, "rationale", split) not in measured.answers:
            continue
        label, rationale = (
            measured.answers[name, "label", split],
            measured.answers[name, "rationale", split],
        )
        pairs = [(answer, rationale[id]) for id, answer in label.items()]
        alike = [(a, b) for a, b in pairs if a.answer is not None and a.answer == b.answer]
        found.append(
            Agreement(
                name=name,
                split=split,
                total=len(pairs),
                alike=len(alike),
                alike_right=sum(a.right for a, _ in alike),
                only_label_right=sum(a.right and not b.right for a, b in pairs),
                only_rationale_right=sum(b.right and not a.right for a, b in pairs),
            )
        )
    return found
