"""A run before it is started: what is asked, learnt and held, read from the recipe and its data.

All that costs nothing is done: the checks, the questions, the first prompt and the first target.
Ray is not started, no model is loaded, and nothing is written into the run folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray import doctor, pipeline
from qcrd_ray.plan.calibration import plan_folder, size_of, write_splits
from qcrd_ray.plan.estimate import estimate, gpus_of
from qcrd_ray.plan.figures import EVALUATION, RATIONALES, Figures, Size
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder, resolve
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import EXPLAIN, PREDICT
from qcrd_ray.tasks.questions import iter_questions
from qcrd_ray.tasks.spool import Written
from qcrd_ray.teacher import Prompt, teacher_for
from qcrd_ray.training.dataset import rounds_of

REASONING = "[the teacher's reasoning]"  # what nobody knows before the teacher is asked


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What one stage does.

    ``gpus`` is what it holds; where `teacher.accelerator` is `auto`, what it holds on a cluster
    with GPUs. ``seconds`` is None where no plan has measured it.
    """

    name: str
    work: str
    gpus: float
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class FirstQuestion:
    """The first training question, as the teacher and the student get it.

    ``inputs`` and ``targets`` are by the student's prefix; a question without an answer has no
    target yet.
    """

    id: str
    prompt: Prompt
    inputs: dict[str, str]
    targets: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """A run that was not started. ``begun``: an earlier call has worked in its folder."""

    folder: Path
    begun: bool
    splits: dict[str, Written]
    first: FirstQuestion
    stages: list[StagePlan]
    whole_seconds: float | None


def dry_run(recipe: Recipe) -> DryRun:
    """Check the recipe as a run does, read its questions, and tell what each stage would do.

    Seconds are told where `qcrd plan` has kept its figures beside the run folder.

    Raises:
        UserError: what :func:`qcrd_ray.doctor.preflight` raises; or the figures cannot be read.
    """
    read = doctor.preflight(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        questions = RunFolder(scratch)
        read.keep(questions)
        splits = write_splits(recipe, questions)
        # a recorded teacher may write into its run folder
        elsewhere = recipe.model_copy(update={"run": scratch})
        first = _first(elsewhere, questions.questions("train"))
    size = size_of(splits)
    # which it is on this cluster only Ray could tell; no second depends on it
    sure = _with_gpus(recipe)
    seconds = _seconds(sure, size)
    held = gpus_of(sure)
    stages = [
        StagePlan(
            name=name,
            work=work,
            gpus=held[name],
            seconds=seconds.get(name),
        )
        for name, work in _works(recipe, size)
    ]
    folder = resolve(recipe.run)
    return DryRun(
        folder=folder,
        begun=RunFolder(folder).recipe.exists(),
        splits=splits,
        first=first,
        stages=stages,
        whole_seconds=sum(seconds.values()) if seconds else None,
    )


def _first(recipe: Recipe, file: Path) -> FirstQuestion:
    """The first question of ``file``, as both models get it."""
    task, question = build_task(recipe.task), next(iter_questions(file))
    with teacher_for(recipe) as teacher:
        teacher.check(iter_questions(file))  # a served one finds out whether it is asked in a chat
        prompt = teacher.prompt(task, question)
    read = task.student_input(question)
    targets = {}
    if (answer := question.answer) is not None:
        targets = {
            PREDICT: task.label(answer, question),
            EXPLAIN: task.explanation(REASONING, answer, question),
        }
    return FirstQuestion(
        id=question.id,
        prompt=prompt,
        inputs={prefix: prefix + read for prefix in (PREDICT, EXPLAIN)},
        targets=targets,
    )


def _with_gpus(recipe: Recipe) -> Recipe:
    """The recipe on a cluster with GPUs, where its served teacher takes what there is."""
    if recipe.teacher.source != "serve" or recipe.teacher.accelerator != "auto":
        return recipe
    teacher = recipe.teacher.model_copy(update={"accelerator": "gpu"})
    return recipe.model_copy(update={"teacher": teacher})


def _seconds(recipe: Recipe, size: Size) -> dict[str, float]:
    """Seconds of each stage, by its name; {} where no plan has been made."""
    kept = plan_folder(recipe) / "figures.json"
    if not kept.exists():
        return {}
    whole = estimate(recipe, size, Figures.read(kept))
    return {stage.name: stage.seconds for stage in whole.stages}


def _works(recipe: Recipe, size: Size) -> Iterator[tuple[str, str]]:
    """Each stage of a run with what it does, in their order (:func:`qcrd_ray.pipeline.run`)."""
    units, questions = size.units(recipe), size.questions
    k = recipe.sampling.k
    samples = f"{k} samples" if recipe.sampling.adaptive is None else f"up to {k} samples"
    yield RATIONALES, f"{units[RATIONALES]:,} questions x {samples}"
    rounds = rounds_of(recipe, questions["train"])
    steps = f"{rounds.steps_per_round:,} steps of {rounds.batch_size} questions"
    for objective in pipeline.objectives(recipe):
        yield objective, f"{rounds.count} rounds x {steps}"
    judge = recipe.judge
    if judge.samples:
        if judge.share:
            shown = f"{judge.share:.0%} of {questions['train']:,} questions"
        else:
            shown = f"{questions['validation']:,} questions"
        yield "judge", f"{shown} x {judge.samples} samples"
        if recipe.self_training.vote != "none":
            again = recipe.self_training.rounds or recipe.train.rounds
            answered = f"{units['self-training']:,} questions x {judge.samples} samples"
            yield "self-training", f"{answered}, then {again} rounds"
    models = len(pipeline.objectives(recipe)) + recipe.evaluate.base
    yield EVALUATION, f"{units[EVALUATION]:,} questions x {models} models"
    yield "serving", "one question"
