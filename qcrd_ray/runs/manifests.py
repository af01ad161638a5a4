"""The schemas of a run folder's manifests, and notes on texts that were cut.

rationales/<split>/manifest.json   RationaleManifest: what became of the questions asked
train/data/manifest.json           TrainingSetManifest: what the student can learn from
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from qcrd_ray.recipe import StudentRecipe
from qcrd_ray.runs.provenance import Call


class Overlap(TypedDict):
    """Questions of a measured split that occur among the training questions."""

    ids: list[str]
    of: int  # how many questions the split has


class AskedCounts(TypedDict):
    """What one run asked of the teacher; tokens are 0 where the source does not count them."""

    asked: int  # questions
    retries: int
    seconds: float  # of asking, without the teacher's start
    first_s: float  # of these, before the first answer
    tokens_in: int
    tokens_out: int
    tokens_per_s: float


class AskingCall(Call, AskedCounts):
    """A run that asked the teacher, with its provenance."""


@dataclass(frozen=True, kw_only=True)
class RationaleManifest:
    """What became of the questions of one split. A run that was killed is not among the calls."""

    split: str
    rows: int  # read from the source
    outcomes: dict[str, int]  # by data.records.Outcome; they add up to `rows`
    completions: int  # samples of the teacher
    roles: dict[str, int]  # by data.records.Role; they add up to `completions`
    tokens: int  # of the completions
    samples_asked: int  # of the questions that were answered
    samples_saved: int  # of the same, to k each: votes that were settled with fewer
    overlap: dict[str, Overlap]  # by measured split; of the training questions' manifest only
    settings: dict[str, Any]  # the recipe's sections that decide the answers
    calls: list[AskingCall]


class TrainingSetManifest(TypedDict):
    """How many questions and targets a training set has, and how many of them were cut."""

    source: str  # hash of the rationales that it is made from
    rows: int  # rationale sets read
    dropped: dict[str, int]  # rationale sets left out, by reason
    questions: int
    labelled: int
    with_positives: int
    with_teacher_negatives: int
    with_first: int
    with_single: int
    positives: int
    negatives: int
    others: NotRequired[int]  # targets that are neither; not counted by older versions
    longest_label: int  # tokens
    truncated_inputs: int
    truncated_labels: int
    truncated_positives: int
    truncated_negatives: int
    truncated_others: NotRequired[int]
    truncated_first: int
    truncated_single: int


def truncation_counts(manifest: TrainingSetManifest) -> dict[str, tuple[int, int]]:
    """(cut, all) of a training set's "inputs" and "targets".

    All methods read the same file, and what any of them reads counts: a question is two inputs, one
    for each head; a rationale is one target, however many methods learn it.
    """
    return {
        "inputs": (manifest["truncated_inputs"], 2 * manifest["questions"]),
        "targets": (
            manifest["truncated_labels"]
            + manifest["truncated_positives"]
            + manifest["truncated_negatives"]
            + manifest.get("truncated_others", 0),
            manifest["labelled"]
            + manifest["positives"]
            + manifest["negatives"]
            + manifest.get("others", 0),
        ),
    }


def truncation_note(manifest: TrainingSetManifest, student: StudentRecipe) -> str:
    """What was cut, and the recipe key that cuts; "" if nothing was."""
    limits = {
        "inputs": ("max_input_tokens", student.max_input_tokens),
        "targets": ("max_target_tokens", student.max_target_tokens),
    }
    return "; ".join(
        f"{cut:,} of {total:,} {name} of the training set were cut at student.{limits[name][0]}"
        f" ({limits[name][1]:,})"
        for name, (cut, total) in truncation_counts(manifest).items()
        if cut
    )
