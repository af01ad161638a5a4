"""The verbs that write a recipe, describe it, and check what its run needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from qcrd_ray.cli.app import Overrides, app, escaped
from qcrd_ray.errors import UserError
from qcrd_ray.runs.progress import console


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(show_default=False)] = None,
    set_: Overrides = None,
):
    """Check the installation and, given a recipe, what its run needs; say how to fix what fails."""
    shown, failed = Console(highlight=False, soft_wrap=True), False
    with console.status("checking the installation") as status:
        if not console.is_terminal:  # the first check imports Ray and torch, for seconds
            console.print("checking the installation and the recipe ...")
        from qcrd_ray.doctor import diagnose

        def starting(name: str) -> None:
            status.update(f"checking: {name}")

        for result in diagnose(recipe, set_ or [], starting=starting):
            failed = failed or not result.ok
            warned = result.ok and "WARNING: " in result.text
            state = "[green]ok  " if result.ok else "[bold red]FAIL"
            state = "[yellow]warn" if warned else state
            shown.print(f"{state}[/] {result.name}: {escaped(result.text)}")
    if failed:
        raise typer.Exit(1)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="where to write it")] = Path("recipe.yaml"),
    teacher: Annotated[
        Literal["serve", "openai", "recording"],
        typer.Option(help="a model that vLLM serves, an endpoint, or texts that you have"),
    ] = "serve",
    task: Annotated[
        str, typer.Option(help="the kind of question, or my_module:MyTask")
    ] = "arithmetic",
    student: Annotated[
        Literal["t5", "causal"], typer.Option(help="an encoder-decoder, or a decoder-only model")
    ] = "t5",
    full: Annotated[
        bool, typer.Option("--full", help="every key with its default and its meaning instead")
    ] = False,
):
    """Write a recipe to start from: some thirty lines to fill in."""
    from pydantic import ValidationError

    from qcrd_ray.recipe import starter, template
    from qcrd_ray.recipe.task import TaskRecipe
    from qcrd_ray.runs.invocation import command

    if path.exists():
        raise UserError(f"{path} exists; name another file, or remove it first")
    try:
        TaskRecipe(kind=task)
    except ValidationError as error:
        reason = error.errors()[0].get("ctx", {}).get("error", error)
        raise UserError(f"--task: {reason}") from None
    text = (
        template.render(path.name)
        if full
        else starter.render(teacher=teacher, task=task, student=student, name=path.name)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
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
