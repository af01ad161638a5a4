"""The stages in their order: questions in, a served student out.

Each stage is a function of the recipe and the run folder alone and picks up where it stopped, so
nothing is paid for twice when the pipeline runs again. What can be known to fail at the end is
refused at the start: see :mod:`qcrd_ray.doctor`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from qcrd_ray import comparison, doctor, evaluation, rationales, serving, training
from qcrd_ray.cluster import resources as cluster
from qcrd_ray.models.student_folder import export_student
from qcrd_ray.recipe import ObjectiveName, Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.report import write_report
from qcrd_ray.report.summary import RunResult
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.progress import Stages
from qcrd_ray.runs.results import Results
from qcrd_ray.runs.tracking import Tracker, tracked
from qcrd_ray.tasks.questions import iter_questions


def run(recipe: Recipe, stages: Stages) -> RunResult:
    """Run all stages: generate, train, evaluate, and serve the student for one question.

    Raises:
        UserError: a mistake in the recipe, the data, the models or the cluster's size. Finished
            work stays in the run folder.
    """
    folder = prepare(recipe, stages, check=doctor.STAGES)
    with folder.in_step(), tracked(recipe, folder) as tracker:
        generate(recipe, folder, stages)
        train(recipe, folder, stages, tracker)
        results = evaluate(recipe, folder, stages, tracker)
        question = next(iter_questions(folder.questions("test")))
        with stages.stage("serving") as report:
            answer = serving.ask_once(
                folder.student,
                # its task is this recipe's own
                recipe.serve.model_copy(update={"trust_task": True}),
                question,
                report,
                schedule_timeout_s=recipe.ray.schedule_timeout_s,
            )
        write_text(folder.seconds, json.dumps(stages.seconds, indent=2) + "\n")
        tracker.artifact(write_report(folder))
    return RunResult(
        folder=folder, results=results, question=question, answer=answer, seconds=stages.seconds
    )


def prepare(recipe: Recipe, stages: Stages, *, check: Sequence[str]) -> RunFolder:
    """Check the recipe, open its run folder and connect to Ray.

    Args:
        check: the stages that the cluster is checked for; none skips these checks.
    """
    with stages.stage("preparing") as report:
        questions = doctor.preflight(recipe)
        folder = RunFolder.open(recipe)
        questions.keep(folder)
        report(1, 2, "starting Ray")
        cluster.connect(recipe.ray)
        if check:
            doctor.preflight_cluster(recipe, check)
    return folder


def generate(recipe: Recipe, folder: RunFolder, stages: Stages) -> None:
    """Ask the teacher the training questions, parse its answers and vote.

    The test questions are asked too where the recipe wants the teacher measured on them.
    """
    splits = ["train", "test"] if recipe.evaluate.teacher_on_test else ["train"]
    with stages.stage("rationales") as report:
        rationales.take_over(recipe, folder, splits)
        rationales.generate_splits(recipe, folder, splits, report=report)
    folder.push()


def train(recipe: Recipe, folder: RunFolder, stages: Stages, tracker: Tracker) -> None:
    """Train one student for each of the recipe's objectives, one after another.

    The recipe's own gets its judges then and, if asked for, a second training on its own samples.
    """
    for objective in objectives(recipe):
        with stages.stage(objective) as report:
            training.train(
                recipe,
                folder,
                objective=objective,
                report=report,
                on_rounds=partial(tracker.rounds, objective),
            )
        folder.push()
    if not recipe.judge.samples:
        return
    first = folder.training(recipe.objective.name)
    with stages.stage("judge") as report:
        training.train_judges(recipe, folder, home=first, report=report)
    folder.push()
    if recipe.self_training.vote == "none":
        return
    with stages.stage("self-training") as report:
        training.self_train(
            recipe,
            folder,
            report=report,
            on_rounds=partial(tracker.rounds, f"{recipe.objective.name} self-training"),
        )
        training.train_judges(recipe, folder, home=folder.student_training(recipe), report=report)
    folder.push()


def evaluate(recipe: Recipe, folder: RunFolder, stages: Stages, tracker: Tracker) -> Results:
    """Measure the models on the test splits, and export the student with what was measured."""
    with stages.stage("evaluation") as report:
        results = evaluation.evaluate(recipe, folder, report=report)
    export_student(recipe, folder, results=results)
    tracker.results(results)
    folder.push()
    return results


def compare(
    path: Path,
    overrides: Sequence[str],
    stages: Stages,
    *,
    methods: Sequence[str],
    seeds: int,
    fractions: Sequence[float],
    labels: str | None,
) -> list[Path]:
    """Compare methods on the recipe's rationales, asking the teacher first where they are missing.

    Returns:
        The tables, one for each fraction of the rationales.
    """
    recipe = load_recipe(path, overrides)
    compared = comparison.read_methods(path, overrides, methods, labels=labels)
    folder = prepare(recipe, stages, check=())
    with folder.in_step():
        generate(recipe, folder, stages)
        for fraction in fractions:
            with stages.stage("comparing") as report:
                comparison.compare(
                    recipe, folder, compared, seeds=seeds, fraction=fraction, report=report
                )
            folder.push()
    return [
        comparison.kept_table(folder, compared, seeds=seeds, fraction=fraction)
        for fraction in fractions
    ]


def objectives(recipe: Recipe) -> list[ObjectiveName]:
    """The recipe's own objective, then the baselines that are trained beside it."""
    return list(dict.fromkeys([recipe.objective.name, *recipe.evaluate.baselines]))
