"""The verb that tells what a run will take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcrd_ray.cli.app import Overrides, RecipePath, app, load

if TYPE_CHECKING:
    from qcrd_ray.plan.estimate import Estimate, Prices


@app.command()
def plan(
    recipe: RecipePath,
    set_: Overrides = None,
    questions: Annotated[
        int,
        typer.Option(
            min=8, help="asked by the smaller of the two small runs; a sixth of the other"
        ),
    ] = 32,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="a figures.json that an earlier plan has kept: nothing is run",
            show_default=False,
        ),
    ] = None,
    gpu_hour: Annotated[float, typer.Option(min=0.0, help="the price of one")] = 0.0,
    tokens_in: Annotated[
        float, typer.Option(min=0.0, help="the price of a million tokens that the teacher reads")
    ] = 0.0,
    tokens_out: Annotated[
        float, typer.Option(min=0.0, help="and of a million that it writes")
    ] = 0.0,
    json_: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
):
    """Tell what a run will take, from two small runs on its own cluster.

    Tokens of the teacher, seconds and GPU-hours of each stage, and money where prices are given.
    The small runs ask the teacher some two hundred questions of each split.
    """
    from qcrd_ray.cluster.resources import connect
    from qcrd_ray.plan import Figures, calibrate, estimate
    from qcrd_ray.plan.calibration import count_questions
    from qcrd_ray.plan.estimate import Prices, changes
    from qcrd_ray.runs.progress import Stages

    loaded = load(recipe, set_)
    size = count_questions(loaded)
    if figures is None:
        measured = calibrate(loaded, size, questions=questions, stages=Stages())
        connect(loaded.ray)  # for an accelerator that is `auto`, also where figures were kept
    else:
        measured = Figures.read(figures)
    whole = estimate(loaded, size, measured)
    others = changes(loaded, size, measured)
    prices = Prices(gpu_hour=gpu_hour, million_tokens_in=tokens_in, million_tokens_out=tokens_out)
    if json_:
        tree = {"whole": asdict(whole), "changes": {name: asdict(e) for name, e in others.items()}}
        print(json.dumps(tree, indent=2))
        return
    _show(whole, others, prices)


def _show(whole: Estimate, others: Mapping[str, Estimate], prices: Prices) -> None:
    from rich.console import Console
    from rich.table import Table

    from qcrd_ray.runs.progress import format_duration

    shown = Console(highlight=False)
    table = Table("stage", "work", "time", "GPU-hours", box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for stage in whole.stages:
        table.add_row(
            stage.name,
            stage.work,
            format_duration(stage.seconds),
            f"{stage.gpu_hours:,.2f}" if stage.gpus else "",
        )
    table.add_row(
        "all", "", format_duration(whole.seconds), f"{whole.gpu_hours:,.2f}", style="bold"
    )
    shown.print(table)
    shown.print(
        f"the teacher reads {whole.tokens_in:,.0f} and writes {whole.tokens_out:,.0f} tokens"
    )
    shown.print(f"most of the time: {whole.bottleneck.name}")
    if whole.cost(prices):
        shown.print(f"cost: {whole.cost(prices):,.2f}")
    for change, other in others.items():
        cost = f", cost {other.cost(prices):,.2f}" if whole.cost(prices) else ""
        shown.print(f"with {change}: {format_duration(other.seconds)}{cost}")
