"""The verbs of a student folder: serve it, answer a file with it, or publish it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qcrd_ray.cli.app import RayAddress, TrustTask, app
from qcrd_ray.runs.progress import Stages


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
    address: RayAddress = None,
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
        "host": host,
        "port": port,
        "replicas": replicas,
        "max_replicas": max_replicas,
        "api_key_file": str(key_file) if key_file else None,
        "trust_task": trust_task or None,
    }
    recipe = serving.read_settings(student, given, set_ or [])
    serving.check(recipe)  # before Ray, which takes seconds to start
    cluster.connect(RayRecipe(address=address))
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
        str,
        typer.Argument(
            help="a .jsonl, .json, .csv, .tsv or .parquet file, or a Hugging Face data set",
            show_default=False,
        ),
    ],
    answers: Annotated[
        Path,
        typer.Argument(
            help="the .jsonl, .csv or .parquet file to write; never one that is there already",
            show_default=False,
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
    split: Annotated[str | None, typer.Option(help="of a data set: test, or train+test")] = None,
    config: Annotated[str | None, typer.Option(help="of a data set: its configuration")] = None,
    engine: Annotated[
        Literal["auto", "transformers", "ctranslate2", "vllm"],
        typer.Option(help="what generates the texts"),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="texts that are written together")] = 64,
    trust_task: TrustTask = False,
    address: RayAddress = None,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    cpus_per_worker: Annotated[float, typer.Option(min=0.0)] = 1.0,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0)] = 0.0,
):
    """Answer a large file of questions with Ray Data. A call that was killed continues.

    Exits with 1 where no question could be answered.
    """
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
    job = predicting.prepare(
        student, questions, answers, options=options, split=split, config=config
    )
    cluster.connect(RayRecipe(address=address))
    worker = Resources(cpus=cpus_per_worker, gpus=gpus_per_worker)
    with Stages().stage("predicting") as report:
        counts = predicting.predict(job, workers=workers, worker=worker, report=report)
    unread = f", {counts.unread:,} without an answer that can be read" if counts.unread else ""
    print(f"{answers}: {counts.answered:,} answered{unread}.")
    if counts.rejected:
        print(f"{Output(answers).rejected}: {counts.rejected:,} rejected.")


@app.command()
def push(
    student: Annotated[
        Path, typer.Argument(help="a student folder, as `qcrd run` exports it", show_default=False)
    ],
    repository: Annotated[
        str, typer.Argument(help="owner/name on the Hugging Face hub", show_default=False)
    ],
    public: Annotated[
        bool, typer.Option("--public", help="let everybody read it; else it is private")
    ] = False,
):
    """Upload a student to the Hugging Face hub, with the token in $HF_TOKEN."""
    from qcrd_ray.models.publish import push_student

    print(push_student(student.expanduser().absolute(), repository, public=public))
