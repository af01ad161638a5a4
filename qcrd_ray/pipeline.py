"""The whole road, one stage after another: questions in, a served student out.

Each stage is a function of the recipe and the run folder alone and picks up where it stopped, so
walking the road again pays for
nothing twice. What can be known to fail at the end is refused at the start: see
:func:`qcrd_ray.doctor.preflight`.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from qcrd_ray import comparison, doctor, evaluation, rationales, serving, training
from qcrd_ray.cluster import resources as cluster
from qcrd_ray.models.student_folder import export_student
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.report import write_report
from qcrd_ray.report.summary import RunResult
from qcrd_ray.run.files import write_text
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.progress import Report, Stages
from qcrd_ray.run.tracking import Tracker, tracked
from qcrd_ray.tasks.questions import load_split


def run(recipe: Recipe, stages: Stages) -> RunResult:
    """Generate, train, evaluate, export, serve and ask one question of the served student.

    Raises:
        UserError: a mistake in the recipe, the data, the models or the cluster's size; finished
            work stays in the run folder.
    """
    with stages.stage("preparing") as report:
        doctor.preflight(recipe)
        folder = RunFolder.open(recipe)
        report(1, 2, "starting Ray")
        cluster.connect(recipe.ray)
        doctor.preflight_cluster(recipe)
    with folder.in_step(), tracked(recipe, folder) as tracker:
        return _run_stages(recipe, folder, stages, tracker)


def _run_stages(recipe: Recipe, folder: RunFolder, stages: Stages, tracker: Tracker) -> RunResult:
    generate(recipe, folder, stages)
    folder.push()
    train(recipe, folder, stages, tracker)
    with stages.stage("evaluation") as report:
        results = evaluation.evaluate(recipe, folder, report=report)
    folder.push()
    with stages.stage("serving") as report:
        student = export_student(recipe, folder, results=results)
        answer = ask_once(recipe, student, report)
    write_text(folder.seconds, json.dumps(stages.seconds, indent=2) + "\n")
    tracker.results(results)
    tracker.artifact(write_report(folder))
    return RunResult(folder=folder, results=results, answer=answer, seconds=stages.seconds)


def generate(recipe: Recipe, folder: RunFolder, stages: Stages) -> None:
    """Ask the teacher the training questions and, where the recipe wants it measured there, the
    test questions.
    """
    splits = ["train", "test"] if recipe.evaluate.teacher_on_test else ["train"]
    with stages.stage("rationales") as report:
        rationales.generate_splits(recipe, folder, splits, report=report)


def train(recipe: Recipe, folder: RunFolder, stages: Stages, tracker: Tracker) -> None:
    """Train for each of the recipe's objectives, one after another."""
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
    """Compare methods on the recipe's rationales, asking the teacher first where they are missing;
    the tables, one for each fraction.
    """
    recipe = load_recipe(path, overrides)
    compared = comparison.read_methods(path, overrides, methods, labels=labels)
    with stages.stage("preparing"):
        doctor.preflight(recipe)
        folder = RunFolder.open(recipe)
        cluster.connect(recipe.ray)
    with folder.in_step():
        generate(recipe, folder, stages)
        folder.push()
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


def objectives(recipe: Recipe) -> list[str]:
    """The recipe's own objective, then the baselines that are trained beside it."""
    return list(dict.fromkeys([recipe.objective.name, *recipe.evaluate.baselines]))


def ask_once(recipe: Recipe, student: Path, report: Report) -> dict:
    """Serve the student, ask it the first test question over HTTP as any client would, and stop it
    again.
    """
    report(0, 2, "starting the endpoint")
    question = load_split(recipe, "test")[0][0]
    # a busy port must not end a run at its last stage
    url = serving.start(student, recipe.serve.model_copy(update={"port": 0}))
    try:
        report(1, 2, "asking one question")
        body = {
            "question": question.question,
            "choices": list(question.choices),
            "rationale": True,
            "quality": True,
        }
        headers = {"Content-Type": "application/json", **serving.headers(recipe.serve)}
        request = urllib.request.Request(f"{url}/v1/predict", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    finally:
        serving.stop()
    report(2, 2, "answered")
    return {"question": question.question, "gold": question.answer, **answer}
