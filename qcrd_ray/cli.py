"""The `qcrd` command: each verb calls a stage of the package and prints what it returns.

Exit codes: 0 done, 1 a mistake that the user can fix (a message without a traceback), 2 wrong
usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from qcrd_ray import __version__
from qcrd_ray.cluster.noise import quiet_libraries
from qcrd_ray.errors import UserError
from qcrd_ray.run.disk import full_disk
from qcrd_ray.run.lock import held_folders
from qcrd_ray.run.progress import Stages, console

INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Turn a large language model's reasoning into a small model: QCRD (arXiv 2405.13014) on"
        " Ray."
    ),
)

DEFAULT_METHODS = "finetune,single_task,dss,mi,dss_voted,qcrd_no_discriminator,qcrd"
RecipePath = Annotated[
    Path, typer.Argument(help="a recipe; `qcrd init` writes one to start from", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="change one key, e.g. train.rounds=4; repeatable"
    ),
]
TrustTask = Annotated[
    bool,
    typer.Option(
        "--trust-task", help="import the module of a task that comes with the student as its own"
    ),
]

OpenPage = Annotated[
    bool, typer.Option("--open", help="open the report in a browser when it is written")
]


def _version(asked: bool) -> None:
    if asked:
        print(f"qcrd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
):
    pass


@app.command()
def run(recipe: RecipePath, set_: Overrides = None, open_: OpenPage = False):
    """Run all stages: generate, train, evaluate, export, and serve for one question."""
    # first, so that a mistake in it is found before the seconds that Ray and torch take to import
    loaded = _load(recipe, set_)
    from qcrd_ray import pipeline
    from qcrd_ray.report import summary

    result = pipeline.run(loaded, Stages())
    summary.show(result)
    if open_:
        _open(result.folder.report)


@app.command()
def generate(recipe: RecipePath, set_: Overrides = None):
    """Ask the teacher, parse its samples and vote on them."""
    loaded = _load(recipe, set_)
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
    loaded = _load(recipe, set_)
    from qcrd_ray.report.parse import parse_texts

    for line in parse_texts(loaded, completions):
        print(line)


@app.command()
def train(recipe: RecipePath, set_: Overrides = None):
    """Train the student (and the recipe's baselines) on the rationales in the run folder."""
    loaded = _load(recipe, set_)
    from qcrd_ray import pipeline
    from qcrd_ray.run.tracking import tracked

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
    loaded = _load(recipe, set_)
    from qcrd_ray import pipeline
    from qcrd_ray.report import summary, write_report
    from qcrd_ray.run.tracking import tracked

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
    from qcrd_ray.run.folder import RunFolder

    page = write_report(RunFolder(folder.expanduser().absolute()))
    print(page)
    if open_:
        _open(page)


@app.command()
def serve(
    student: Annotated[
        Path, typer.Argument(help="a student folder, as `qcrd run` exports it", show_default=False)
    ],
    host: Annotated[
        str, typer.Option(help="where to listen; anything but the loopback needs a key")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(help="holds the bearer key that callers must send; else $QCRD_API_KEY"),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1)] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="as many as load asks for, up to this")
    ] = None,
    trust_task: TrustTask = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="another key of a recipe's serve section"),
    ] = None,
):
    """Serve a student over HTTP until it is interrupted."""
    from qcrd_ray import serving
    from qcrd_ray.cluster import resources as cluster
    from qcrd_ray.recipe import RayRecipe

    given = {
        "replicas": replicas,
        "max_replicas": max_replicas,
        "api_key_file": str(key_file) if key_file else None,
        "trust_task": trust_task or None,
    }
    recipe = serving.read_settings(student, given, set_ or []).model_copy(
        update={"host": host, "port": port}
    )
    serving.check(recipe)  # before Ray, which takes seconds to start
    cluster.connect(RayRecipe())
    url = serving.start(student, recipe)
    print(f"serving {student} at {url}; for example:\n{serving.example(url, recipe)}")
    print("Ctrl-C stops it.", flush=True)
    serving.wait()
    print("the endpoint has stopped; what it had taken is answered")


@app.command()
def predict(
    student: Annotated[
        Path, typer.Argument(help="a student folder, as `qcrd run` exports it", show_default=False)
    ],
    questions: Annotated[
        str, typer.Argument(help="a .jsonl file of questions", show_default=False)
    ],
    answers: Annotated[
        Path,
        typer.Argument(
            help="the .jsonl file to write; never one that is there already", show_default=False
        ),
    ],
    rationale: Annotated[
        bool,
        typer.Option(
            "--rationale", help="also write the reasoning, and the answer that it ends in"
        ),
    ] = False,
    quality: Annotated[
        bool, typer.Option("--quality", help="also score the reasoning with the discriminator")
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=2, help="also let so many sampled rationales vote")
    ] = None,
    vote: Annotated[
        Literal["plain", "judged"] | None, typer.Option(help="judged: by default, with a judge")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=NAME", help="which column holds id, question or choices"),
    ] = None,
    engine: Annotated[
        Literal["auto", "transformers", "ctranslate2", "vllm"],
        typer.Option(help="what generates the texts"),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="texts that are written together")] = 64,
    trust_task: TrustTask = False,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    cpus_per_worker: Annotated[float, typer.Option(min=0.0)] = 1.0,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0)] = 0.0,
):
    """Answer a large file of questions with Ray Data. A call that was killed continues."""
    from qcrd_ray.cluster import resources as cluster
    from qcrd_ray.prediction import stage as predicting
    from qcrd_ray.prediction.output import Output
    from qcrd_ray.recipe import RayRecipe
    from qcrd_ray.recipe.base import Resources

    options = predicting.PredictOptions(
        rationale=rationale,
        quality=quality,
        samples=samples,
        vote=vote,
        columns=predicting.read_columns(column or []),
        engine=engine,
        batch_size=batch_size,
        trust_task=trust_task,
    )
    # before Ray, which takes seconds to start
    job = predicting.prepare(student, questions, answers, options=options)
    cluster.connect(RayRecipe())
    worker = Resources(cpus=cpus_per_worker, gpus=gpus_per_worker)
    with Stages().stage("predicting") as report:
        counts = predicting.predict(job, workers=workers, worker=worker, report=report)
    print(f"{answers}: {counts.answered:,} answered.")
    if counts.rejected:
        print(f"{Output(answers).rejected}: {counts.rejected:,} rejected.")


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(show_default=False)] = None,
    set_: Overrides = None,
):
    """Check the installation and, given a recipe, what its run needs; say how to fix what fails."""
    from qcrd_ray.doctor import diagnose

    results = diagnose(recipe, set_ or [])
    for result in results:
        print(f"{'ok  ' if result.ok else 'FAIL'} {result.name}: {result.text}")
    if not all(result.ok for result in results):
        raise typer.Exit(1)


@app.command()
def init(path: Annotated[Path, typer.Argument(help="where to write it")] = Path("recipe.yaml")):
    """Write a commented recipe to start from."""
    from qcrd_ray.recipe.template import render
    from qcrd_ray.run.invocation import command

    if path.exists():
        raise UserError(f"{path} exists; name another file, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(path.name), encoding="utf-8")
    print(f"{path} written. Fill in data, teacher and student, then:\n{command('doctor', path)}")


@app.command()
def schema(
    path: Annotated[
        Path | None, typer.Argument(help="where to write it; printed without", show_default=False)
    ] = None,
):
    """Write the recipe's JSON schema, which editors complete and check recipes with."""
    from qcrd_ray.recipe.schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=2)
    if path is None:
        print(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(path)


def _load(path: Path, overrides: list[str] | None):
    from qcrd_ray.recipe.file import load_recipe

    return load_recipe(path, overrides or [])


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        print(f"there is no browser here; open {page}")


VERBS = tuple(typer.main.get_group(app).commands)


def main() -> None:
    """Run the console script.

    A user's mistake ends it with a message and no traceback; SIGTERM ends a stage in order, as
    Ctrl-C does; so does a full disk, with what it was.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    # as Ray's workers have it: a task of one's own may lie in the folder that `qcrd` is called from
    sys.path.append(os.getcwd())
    try:
        with quiet_libraries():
            app()
    except UserError as error:
        console.print(f"[bold red]error[/] {_escaped(error)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code != INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise
        console.print("interrupted; the same command goes on from what is finished")
        terminated = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        sys.exit(TERMINATED if terminated else INTERRUPTED)
    except Exception as error:
        if (said := full_disk(error)) is None:
            raise
        folders = ", ".join(map(str, held_folders()))
        console.print(
            f"[bold red]error[/] a disk is full: {_escaped(said)}\nMake room"
            f"{f' for {_escaped(folders)}' if folders else ''}; the same command goes on from what"
            " is finished",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """On SIGTERM (`ray job stop`, Kubernetes), end a stage as Ctrl-C does, so that it cleans up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut that short
    raise KeyboardInterrupt


def _escaped(error: UserError | str) -> str:
    from rich.markup import escape

    return escape(str(error))


if __name__ == "__main__":
    main()
