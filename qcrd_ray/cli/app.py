"""The application that the verbs join, and the options that several of them take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcrd_ray import __version__

if TYPE_CHECKING:
    from qcrd_ray.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Turn a large language model's reasoning into a small model: QCRD (arXiv 2405.13014) on"
        " Ray."
    ),
)

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
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="the Ray cluster to join; else the one of $RAY_ADDRESS, else a local one",
        show_default=False,
    ),
]
TakeOver = Annotated[
    Path | None,
    typer.Option(
        "--rationales",
        help="a run folder whose answered questions are taken over, and not asked again",
        show_default=False,
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


def load(path: Path, overrides: list[str] | None, rationales: Path | None = None) -> Recipe:
    """The recipe of a call, with what its options change."""
    from qcrd_ray.recipe.file import load_recipe

    taken = [] if rationales is None else [f"data.rationales={json.dumps(str(rationales))}"]
    return load_recipe(path, [*(overrides or []), *taken])


def open_page(page: Path) -> None:
    """Show a page in a browser, or say where it lies."""
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        print(f"there is no browser here; open {page}")


def escaped(error: Exception | str) -> str:
    """An error's words as `rich` prints them unchanged."""
    from rich.markup import escape

    return escape(str(error))
