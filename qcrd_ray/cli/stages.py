"""The verbs of a recipe's stages, and `report` on a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcrd_ray.cli.app import OpenPage, Overrides, RecipePath, TakeOver, app, load, open_page
from qcrd_ray.errors import UserError
from qcrd_ray.runs.progress import Stages

DEFAULT_METHODS = "finetune,single_task,dss,mi,dss_voted,qcrd_no_discriminator,qcrd"


@app.command()
def run(
    recipe: RecipePath,
    rationales: TakeOver = None,
    set_: Overrides = None,
    open_: OpenPage = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="check all, show what would be done, and start nothing"),
    ] = False,
):
    """Run all stages: generate, train, evaluate, export, and serve for one question."""
    # first, so that a mistake in it is found before the seconds that Ray and torch take to import
    loaded = load(recipe, set_, rationales)
    if dry_run:
        from qcrd_ray.cli.dry_run import show
        from qcrd_ray.plan.dry_run import dry_run as dry

        show(dry(loaded))
        return
    stages = Stages()
    with stages.stage("loading"):  # Ray, torch and the rest take seconds to import
        from qcrd_ray import pipeline
        from qcrd_ray.report import summary

    result = pipeline.run(loaded, stages)
    summary.show(result)
    if open_:
        open_page(result.folder.report)


@app.command()
def generate(recipe: RecipePath, rationales: TakeOver = None, set_: Overrides = None):
    """Ask the teacher, parse its samples and vote on them."""
    loaded = load(recipe, set_, rationales)
    from qcrd_ray import pipeline
    from qcrd_ray.report import summary

    stages = Stages()
    folder = pipeline.prepare(loaded, stages, check=["generate"])
    with folder.in_step():
        pipeline.generate(loaded, folder, stages)
    summary.show_reading(loaded, folder)
    print(folder.rationales("train"))


@app.command()
def parse(
    recipe: RecipePath,
    completions: Annotated[
        Path,
        typer.Argument(
            help="JSON Lines with id and completion; - reads standard input", show_default=False
        ),
    ],
    set_: Overrides = None,
):
    """Show what the recipe's task reads from each text, from where, or why not, with totals."""
    loaded = load(recipe, set_)
    from qcrd_ray.report.parse import parse_texts

    for line in parse_texts(loaded, completions):
        print(line)


@app.command()
def train(recipe: RecipePath, set_: Overrides = None):
    """Train the student (and the recipe's baselines) on the rationales in the run folder."""
    loaded = load(recipe, set_)
    from qcrd_ray import pipeline
    from qcrd_ray.runs.tracking import tracked

    stages = Stages()
    folder = pipeline.prepare(loaded, stages, check=["train"])
    with folder.in_step(), tracked(loaded, folder) as tracker:
        pipeline.train(loaded, folder, stages, tracker)
    homes = [folder.training(objective) for objective in pipeline.objectives(loaded)]
    for home in dict.fromkeys([*homes, folder.student_training(loaded)]):
        print(home / "best")


@app.command()
def evaluate(recipe: RecipePath, set_: Overrides = None):
    """Measure teacher, base, baselines and student on the test split, and export the student."""
    loaded = load(recipe, set_)
    from qcrd_ray import pipeline
    from qcrd_ray.report import summary, write_report
    from qcrd_ray.runs.tracking import tracked

    stages = Stages()
    folder = pipeline.prepare(loaded, stages, check=["evaluate"])
    with folder.in_step(), tracked(loaded, folder) as tracker:
        results = pipeline.evaluate(loaded, folder, stages, tracker)
        tracker.artifact(write_report(folder))
    summary.show_table(results)
    print(folder.student)
    print(folder.report)


@app.command()
def compare(
    recipe: RecipePath,
    methods: Annotated[
        str,
        typer.Option(help="comma-separated: methods, the recipe's compare.variants, alias=method"),
    ] = DEFAULT_METHODS,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each method")] = 5,
    data_fraction: Annotated[
        str, typer.Option(help="comma-separated shares of the rationales; a table for each")
    ] = "1",
    labels: Annotated[
        str | None, typer.Option(help="gold or vote: replaces objective.labels for all methods")
    ] = None,
    set_: Overrides = None,
):
    """Train methods with several seeds on the same rationales; write a table of paired tests."""
    from qcrd_ray import pipeline

    fractions = [_fraction(each) for each in data_fraction.split(",")]
    if labels not in (None, "gold", "vote"):
        raise UserError(f"--labels: expected gold or vote, not {labels!r}")
    names = [name.strip() for name in methods.split(",") if name.strip()]
    for table in pipeline.compare(
        recipe, set_ or [], Stages(), methods=names, seeds=seeds, fractions=fractions, labels=labels
    ):
        print(table.read_text())
        print(table)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UserError(
            "--data-fraction: expected shares above 0 and up to 1, such as 0.25,0.5,1, not"
            f" {text!r}"
        )
    return value


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="a run folder, finished or not", show_default=False)
    ],
    open_: OpenPage = False,
):
    """Write report.html into a run folder: counts, curves, accuracies and examples on one page."""
    from qcrd_ray.report import write_report
    from qcrd_ray.runs.folder import RunFolder

    page = write_report(RunFolder(folder.expanduser().absolute()))
    print(page)
    if open_:
        open_page(page)
