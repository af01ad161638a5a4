"""Train the judges of a finished student, on questions that it was not trained on.

train/<objective>/judges/<name>/        config.json, model.safetensors
train/<objective>/judges/quality.json   JudgeTraining: how well they judge questions that they
                                        were not trained on themselves
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.inference.evidence import feature_names
from qcrd_ray.inference.pool import run_pool, split_jobs
from qcrd_ray.inference.voting import Judges, Samples, winner_share
from qcrd_ray.method.judge import Judge, cross_fitted_scores, fit_confidence, fit_judge
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.method.ranking import judge_quality
from qcrd_ray.models.names import fingerprint
from qcrd_ray.recipe import ObjectiveName, Recipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.results import JudgeTraining
from qcrd_ray.tasks import build_task
from qcrd_ray.training.dataset import read_validation
from qcrd_ray.training.prepare import JUDGE_QUESTIONS

QUALITY = "quality.json"


def train_judges(
    recipe: Recipe,
    folder: RunFolder,
    *,
    home: Path,
    report: Report = no_progress,
) -> JudgeTraining:
    """Sample the best student and train the recipe's judges on the samples. Ray must be connected.

    ``home`` is the folder of its training. Finished judges of the same student are kept.

    Raises:
        UserError: nothing has been trained, or the student lacks a head that the judges need.
        MissingResource: the cluster is too small.
    """
    check_heads(recipe, recipe.objective.name)
    student, file = home / "best", home / "judges" / QUALITY
    if not (home / "result.json").is_file():
        raise UserError(f"judge: {home} holds no finished training: run `qcrd train` first")
    weights = fingerprint(student)
    if file.exists() and (kept := json.loads(file.read_text()))["student"] == weights:
        return kept
    questions = judge_questions(recipe, folder.root / "train", folder.questions("validation"))
    began = time.monotonic()
    samples = sample_in_pool(
        recipe, folder, student, questions, report=report, note="samples for the judge"
    )
    quality = fit_judges(recipe, questions, samples, home / "judges")
    quality["student"] = weights
    quality["seconds"] = round(time.monotonic() - began, 1)
    write_text(file, json.dumps(quality, indent=2) + "\n")
    return quality


def sample_in_pool(
    recipe: Recipe,
    folder: RunFolder,
    student: Path,
    questions: Sequence[Question],
    *,
    report: Report,
    note: str,
) -> list[Samples]:
    """A student's samples for ``questions``, in their order, by the pool of `evaluate.workers`."""
    jobs = split_jobs(
        0,
        student,
        "samples",
        questions,
        size=recipe.evaluate.batch_size,
        base=folder.root / "train" / "start",
    )
    samples: dict[str, Samples] = {}
    for done in run_pool(recipe, jobs):
        samples |= {
            question.id: each
            for question, each in zip(done.job.questions, done.samples, strict=True)
        }
        report(len(samples), len(questions), note)
    return [samples[question.id] for question in questions]


def check_heads(recipe: Recipe, objective: ObjectiveName) -> None:
    """Refuse judges that need a head which the objective does not train."""
    heads = OBJECTIVES[objective].heads()
    if "rationale" not in heads:
        raise UserError(
            f"judge.samples: {objective} trains no rationale head, which a vote samples; set it to"
            " 0, or train by another objective.name"
        )
    if "label" in recipe.judge.evidence and "label" not in heads:
        raise UserError(
            f"judge.inputs: {objective} trains no label head; leave out `label` (also in"
            " judge.others)"
        )


def judge_questions(recipe: Recipe, home: Path, validation: Path) -> list[Question]:
    """What judges are trained on: the questions kept for them, or those of validation.

    ``home`` holds the prepared training set in data/.
    """
    file = home / "data" / JUDGE_QUESTIONS if recipe.judge.share else validation
    if not file.exists():
        raise UserError(
            f"judge.share: {recipe.judge.share:g} of the training questions with a"
            f" {recipe.judge.labels} answer is no question at all; raise it, or set it to 0 to"
            " learn from the validation questions"
        )
    return read_validation(file, build_task(recipe.task), limit=None)


def fit_judges(
    recipe: Recipe, questions: Sequence[Question], samples: Sequence[Samples], folder: Path
) -> JudgeTraining:
    """Train and save the judges. Their quality is that of judges that are trained on four fifths
    of the questions and read on the others.
    """
    settings = recipe.judge
    right = [
        [answer.answer == question.answer for answer in each.answers]
        for question, each in zip(questions, samples, strict=True)
    ]
    quality: JudgeTraining = {
        "questions": len(questions),
        "samples": settings.samples,
        "judges": {},
    }
    for name, inputs in settings.all_inputs.items():
        features = feature_names(inputs)
        untrained = Judges({name: Judge(features, hidden=settings.hidden)}, settings.evidence)
        evidence = untrained.evidence(name, samples)
        trained = fit_judge(evidence, right, features, hidden=settings.hidden, seed=recipe.seed)
        scores = cross_fitted_scores(
            evidence, right, features, hidden=settings.hidden, seed=recipe.seed
        )
        winners = [
            winner_share([answer.answer for answer in each.answers], of_question)
            for each, of_question in zip(samples, scores, strict=True)
        ]
        wins = [
            answer == question.answer
            for question, (answer, _) in zip(questions, winners, strict=True)
        ]
        trained.slope, trained.offset = fit_confidence([share for _, share in winners], wins)
        trained.save(
            folder / name,
            inputs=list(inputs),
            samples=settings.samples,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        quality["judges"][name] = judge_quality(
            scores,
            right,
            confidences=[trained.confidence(share) for _, share in winners],
            wins=wins,
        )
    return quality
