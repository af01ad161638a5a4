"""Self-training: the vote of a student's samples on unlabelled questions, learnt as rationales.

The samples that agree with the vote are positives and the others negatives, as the teacher's are
(METHOD.md section 1). With the judge's vote this distils the judge into greedy answers; with the
plain one it is self-improvement by self-consistency (Huang et al. 2022, arXiv 2210.11610).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from qcrd_ray.data.records import (
    RATIONALE_SET_SCHEMA,
    Completion,
    Outcome,
    Question,
    RationaleSet,
    Role,
)
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.voting import Judges, Samples, judged_vote, plain_vote
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.results import TrainingResult
from qcrd_ray.tasks.splits import store_split
from qcrd_ray.training import OnRounds, ignore
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.judges import sample_in_pool
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.trainer import RESULT, prepare_job, run_job


def self_train(
    recipe: Recipe,
    folder: RunFolder,
    *,
    report: Report = no_progress,
    on_rounds: OnRounds = ignore,
) -> TrainingResult:
    """The second training of a run whose student and judges are there. Ray must be connected.

    A finished one returns at once; an interrupted one samples again the same, and goes on.

    Raises:
        UserError, MissingResource: as :func:`qcrd_ray.training.trainer.train`.
    """
    objective = recipe.objective.name
    first, second = folder.training(objective), folder.self_training(objective)
    if (second / RESULT).exists():
        on_rounds(read_metrics(second))
        return json.loads((second / RESULT).read_text())
    questions, _ = store_split(recipe, folder, "unlabelled")
    samples = sample_in_pool(
        recipe,
        folder,
        first / "best",
        questions,
        report=report,
        note="samples of unlabelled questions",
    )
    job = self_training_job(
        prepare_job(recipe, folder, objective),
        folder,
        rationales=folder.read_rationales("train"),
        questions=questions,
        samples=samples,
        judges=Judges.load(first / "judges", recipe.judge),
    )
    return run_job(job, report=report, on_rounds=on_rounds)


def self_training_job(
    job: TrainingJob,
    folder: RunFolder,
    *,
    rationales: pa.Table,
    questions: Sequence[Question],
    samples: Sequence[Samples],
    judges: Judges,
) -> TrainingJob:
    """The second training: on the teacher's ``rationales`` and the student's own, side by side.

    ``samples`` are those of the student that ``job`` has trained, for ``questions``.
    """
    table = pa.concat_tables(
        [rationales, own_rationales(job.recipe, questions, samples, judges=judges)]
    )
    return prepare_job(
        second_recipe(job.recipe, job.folder / "best"),
        folder,
        job.objective_name,
        home=job.folder / "self_training",
        rationales=table,
    )


def second_recipe(recipe: Recipe, student: Path) -> Recipe:
    """The recipe of the second training, after the one that has written ``student``."""
    settings = recipe.self_training
    changes = {}
    if settings.start == "student":
        changes["student"] = recipe.student.model_copy(
            update={"model": str(student), "scratch": None}
        )
    if settings.rounds is not None:
        changes["train"] = recipe.train.model_copy(update={"rounds": settings.rounds})
    return recipe.model_copy(update=changes)


def own_rationales(
    recipe: Recipe, questions: Sequence[Question], samples: Sequence[Samples], *, judges: Judges
) -> pa.Table:
    """Voted rationales of the student's ``samples``, as RATIONALE_SET_SCHEMA has the teacher's.

    A question whose vote is less certain than `self_training.least_confidence` has no consensus.
    Its gold answer is not looked at.
    """
    rows = [
        _rationale_set(recipe, question, each, winner).row()
        for question, each, winner in zip(
            questions, samples, _winners(recipe, samples, judges), strict=True
        )
    ]
    return pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA)


def _winners(recipe: Recipe, samples: Sequence[Samples], judges: Judges) -> Iterator[HeadAnswer]:
    if recipe.self_training.vote == "plain":
        yield from map(plain_vote, samples)
        return
    name = recipe.self_training.judge
    scores = judges.scores(samples)[name]
    for each, of_question in zip(samples, scores, strict=True):
        yield judged_vote(each, of_question, judges.judges[name])


def _rationale_set(
    recipe: Recipe, question: Question, samples: Samples, winner: HeadAnswer
) -> RationaleSet:
    confidence = winner.confidence or 0.0
    kept = winner.answer is not None and confidence >= recipe.self_training.least_confidence
    completions = tuple(
        Completion(
            text=answer.text,
            finish_reason=answer.finish_reason,
            tokens=answer.tokens,
            rationale=answer.rationale,
            answer=answer.answer,
            role=_role(answer, winner) if kept else Role.ABSTAINED,
        )
        for answer in samples.answers
    )
    return RationaleSet(
        id=f"own-{question.id}",
        question_id=f"own-{question.id}",
        question=question.question,
        choices=question.choices,
        completions=completions,
        outcome=Outcome.ACCEPTED if kept else Outcome.NO_CONSENSUS,
        reason="" if kept else f"the vote's confidence is {confidence:.2f}",
        vote=winner.answer if kept else None,
        vote_share=confidence if kept else 0.0,
    )


def _role(answer: HeadAnswer, winner: HeadAnswer) -> Role:
    if answer.answer is None:
        return Role.ABSTAINED
    return Role.POSITIVE if answer.answer == winner.answer else Role.NEGATIVE
