"""Whether what came of asking can be trained on; if not, why, and what to do about it."""

from __future__ import annotations

import logging
from pathlib import Path

from qcrd_ray.data.records import Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.store import ShardCounts
from qcrd_ray.recipe import GenerationRecipe, Recipe, RecordedTeacher
from qcrd_ray.runs.manifests import RationaleManifest

log = logging.getLogger(__name__)


def failed_too_often(settings: GenerationRecipe, failed: int, of: int, reason: str) -> UserError:
    """The error of a teacher that failed on too large a share of the questions."""
    return UserError(
        f"the teacher failed on {failed:,} of {of:,} questions, more than"
        f" generation.max_failed_share = {settings.max_failed_share:g}: {reason}\nWhat it answered"
        " lies in the run folder; the next run asks the failed and the missing questions only."
    )


def check_not_stopped(counts: ShardCounts, manifest: RationaleManifest) -> None:
    """Raise UserError if the teacher stopped early.

    Going on would train on the questions that happened to come before it stopped.
    """
    if counts.stopped:
        raise UserError(
            f"the teacher stopped before {counts.stopped.total()} of the {manifest.rows} questions"
            f" of {manifest.split}: {counts.stopped.most_common(1)[0][0]}\nWhat it answered lies in"
            " the run folder; the next run asks the missing questions only."
        )


def check_unchanged(counts: ShardCounts, begun: Path) -> None:
    """Raise UserError if there are questions to ask that a training has begun without.

    Failed rows stay failed then: with more rows the training could not go on from where it is.
    """
    if counts.pending:
        raise UserError(
            f"{counts.pending:,} questions of train have not been asked, and the training in"
            f" {begun} began without them: it would go on with other data than it started with."
            f" Delete {begun} to ask them and train on all from the start."
        )
    if failed := counts.outcomes[Outcome.FAILED]:
        log.warning(
            "%d failed questions are not asked again: the training in %s began without them",
            failed,
            begun,
        )


def check_failed_share(recipe: Recipe, counts: ShardCounts) -> None:
    """Raise UserError if too many questions have failed in the end to train on the rest."""
    failed = counts.outcomes[Outcome.FAILED]
    if failed > recipe.generation.max_failed_share * counts.requests:
        raise failed_too_often(
            recipe.generation, failed, counts.requests, counts.failure or "see its rows"
        )


def check_usable(recipe: Recipe, counts: ShardCounts, manifest: RationaleManifest) -> None:
    """Raise UserError if no question has a usable answer.

    The error shows an answer that came back and names the fields that could be wrong.
    """
    usable = (Outcome.ACCEPTED, Outcome.NO_CONSENSUS)
    if any(manifest.outcomes[outcome] for outcome in usable):
        return
    row = counts.example
    assert row is not None
    outcomes = ", ".join(f"{count} {name}" for name, count in manifest.outcomes.items() if count)
    example = f"question {row['question_id']!r} ended as {row['outcome']}: {row['reason']}"
    if row["completions"]:
        example += f"\n  the teacher wrote: {row['completions'][0]['text'][:300]!r}"
    advice = _advice(recipe, unparsed=row["outcome"] == Outcome.UNPARSED)
    raise UserError(
        f"the teacher answered nothing that can be used for any question of {manifest.split}"
        f" ({outcomes})\n  {example}\n{advice}"
    )


def _advice(recipe: Recipe, *, unparsed: bool) -> str:
    """What to change; a recording cannot be told to write something else."""
    kind = f"task.kind is {recipe.task.kind}"
    if isinstance(recipe.teacher, RecordedTeacher):
        if unparsed:
            return (
                f"Read the recording as what it is: another task ({kind}), another column"
                " (teacher.columns.completion), other marks (task.thinking). `qcrd parse` shows how"
                " each text is read."
            )
        return (
            f"Vote over fewer samples than sampling.k = {recipe.sampling.k} (or over what is there:"
            " vote.incomplete: vote), or name the columns that hold the questions' ids"
            " (teacher.columns.id, data.columns.id)."
        )
    if unparsed:
        return (
            f"Change what the teacher is asked with task.instruction and task.examples ({kind}), or"
            f" give it more room with sampling.max_tokens (now {recipe.sampling.max_tokens}). `qcrd"
            " parse` shows how texts are read."
        )
    return (
        "Look at the teacher.* section of the recipe; failed rows are asked again by the next run."
    )
