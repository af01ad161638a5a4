"""What was measured on the test splits: accuracies, models compared question by question, and how far the two heads agree."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow.parquet as pq

from qcrd_ray.evaluation import Paired, pair
from qcrd_ray.run_folder import RunFolder

Key = tuple[str, str, str]  # name, head, split


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One model's answer to one question. ``text`` is None for a vote."""

    answer: str | None
    gold: str
    right: bool
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """``results`` is results.json; ``answers`` holds every prediction: (name, head, split) -> question id -> answer."""

    results: dict
    answers: dict[Key, dict[str, Answer]]

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(row["split"] for row in self.results["rows"]))

    @property
    def baselines(self) -> list[str]:
        """The objectives that were trained and measured beside the run's own."""
        names = dict.fromkeys(row["name"] for row in self.results["rows"])
        return [name for name in names if not name.startswith(("student", "teacher"))]

    def heads(self, name: str) -> list[str]:
        """The heads that a model was measured by."""
        return list(dict.fromkeys(row["head"] for row in self.results["rows"] if row["name"] == name))

    def row(self, name: str, head: str, split: str) -> dict | None:
        """A row of the results, None where that was not measured."""
        wanted = (name, head, split)
        return next((row for row in self.results["rows"] if (row["name"], row["head"], row["split"]) == wanted), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models (name, head) on one split."""

    split: str
    first: tuple[str, str]
    second: tuple[str, str]
    counts: Paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many questions both heads of a model answered alike, and how many of these, and of the others, each got right."""

    name: str
    split: str
    total: int
    alike: int
    alike_right: int
    only_label_right: int
    only_rationale_right: int


def read_measured(folder: RunFolder) -> Measured | None:
    """The evaluation, None where there has been none."""
    results, predictions = folder.evaluation / "results.json", folder.evaluation / "predictions.parquet"
    if not (results.exists() and predictions.exists()):
        return None
    answers: dict[Key, dict[str, Answer]] = {}
    columns = ["name", "head", "split", "question_id", "gold", "text", "answer", "right"]
    for row in pq.read_table(predictions, columns=columns).to_pylist():
        answer = Answer(answer=row["answer"], gold=row["gold"], right=row["right"], text=row["text"])
        answers.setdefault((row["name"], row["head"], row["split"]), {})[row["question_id"]] = answer
    return Measured(results=json.loads(results.read_text()), answers=answers)


def opponents(measured: Measured) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """What the student's heads are held against: the same head of every baseline and of the base (a baseline's only head where it has
    one), and the two heads against each other."""
    found = []
    for name in (*measured.baselines, "student base"):
        theirs = measured.heads(name)
        for head in measured.heads("student"):
            if theirs:
                found.append((("student", head), (name, head if head in theirs else theirs[0])))
    if len(measured.heads("student")) > 1:
        found.append((("student", "rationale"), ("student", "label")))
    return found


def comparisons(measured: Measured) -> list[Comparison]:
    """All of :func:`opponents`, on every split that has both."""
    found = []
    for split in measured.splits:
        for first, second in opponents(measured):
            one, other = measured.answers.get((*first, split)), measured.answers.get((*second, split))
            if one and other:
                counts = pair({id: a.right for id, a in one.items()}, {id: a.right for id, a in other.items()})
                found.append(Comparison(split=split, first=first, second=second, counts=counts))
    return found


def agreements(measured: Measured) -> list[Agreement]:
    """The two heads of every model that has both. Two missing answers do not agree."""
    found = []
    for name, head, split in measured.answers:
        if head != "label" or (name, "rationale", split) not in measured.answers:
            continue
        label, rationale = measured.answers[name, "label", split], measured.answers[name, "rationale", split]
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
