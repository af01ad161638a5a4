"""Whether a training set holds what an objective learns; if not, its counts and what to change.

Without this a training whose every vote was tied ran to its end, and taught the labels alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from qcrd_ray.data.records import Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import ObjectiveName, Recipe
from qcrd_ray.runs.manifests import TrainingSetManifest
from qcrd_ray.training.prepare import Rationales


def check_learnable(
    recipe: Recipe,
    objective: ObjectiveName,
    manifest: TrainingSetManifest,
    parts: Sequence[Rationales],
) -> None:
    """Refuse a training set that holds nothing of what ``objective`` is there to learn.

    Args:
        manifest: of the training set.
        parts: the rationale sets that it was made of.

    Raises:
        UserError: names the counts, and the keys that would give it something.
    """
    labels = recipe.objective.labels
    if objective == "finetune":
        if not manifest["labelled"]:
            raise UserError(
                f"no training question has a {labels} answer: finetune has nothing to train on"
                " (objective.labels)"
            )
    elif objective == "single_task":
        if not manifest["with_single"]:
            raise UserError(
                f"no training question has both a {labels} answer and a sample that could be read:"
                " single_task has nothing to train on (objective.labels)"
            )
    elif OBJECTIVES[objective].uses_negatives:
        if not manifest["with_positives"] and recipe.objective.alpha_cl:
            raise UserError(_without_positives(recipe, objective, manifest, outcomes_of(parts)))
    elif not manifest["with_first"]:
        raise UserError(
            f"none of the {manifest['questions']:,} training questions has a sample that could be"
            f" read: {objective} has no rationale to learn. `qcrd parse` shows how texts are read"
            " (task.kind, task.closing)"
        )


def outcomes_of(parts: Sequence[Rationales]) -> Counter[str]:
    """How many rationale sets ended in each outcome."""
    counts = Counter[str]()
    for part in parts:
        table = pq.read_table(part, columns=["outcome"]) if isinstance(part, Path) else part
        counts.update(table["outcome"].to_pylist())
    return counts


def _without_positives(
    recipe: Recipe, objective: ObjectiveName, manifest: TrainingSetManifest, outcomes: Counter[str]
) -> str:
    counted = ", ".join(
        f"{outcomes[each]:,} {each.value.replace('_', ' ')}" for each in Outcome if outcomes[each]
    )
    changes = []
    if outcomes[Outcome.NO_CONSENSUS]:
        more = "record" if recipe.teacher.source == "recording" else "sample"
        changes.append(
            f"{more} more answers a question (sampling.k is {recipe.sampling.k}; with two, each"
            " disagreement is a tie)"
        )
        if recipe.vote.tie != "first":
            changes.append("let the first of tied answers win (vote.tie: first)")
        if recipe.objective.positives != "label" and manifest["labelled"]:
            changes.append(
                "take the samples that end in the data's answer for right (objective.positives:"
                " label)"
            )
    if outcomes[Outcome.ACCEPTED]:
        changes.append(
            "see that the teacher's texts hold reasoning besides their answer (`qcrd parse` shows"
            " what is read)"
        )
    if not changes:
        changes.append("see why no text can be read (`qcrd parse` shows it)")
    if manifest["labelled"]:
        changes.append("train on the labels alone (objective.name: finetune)")
    return (
        f"{objective} learns from right rationales, and not one of the"
        f" {manifest['questions']:,} training questions has one: the teacher's answers ended as"
        f" {counted or 'nothing'}.\nWhat would give it some:\n"
        + "\n".join(f"  - {change}" for change in changes)
    )
