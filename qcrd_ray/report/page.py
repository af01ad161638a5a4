"""The whole page: every section in its order, in one file without a network and JavaScript."""

from __future__ import annotations

import json
from datetime import datetime
from importlib import resources
from pathlib import Path

from qcrd_ray import __version__
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.report.accuracy import measured_section
from qcrd_ray.report.effort import effort_section, provenance_section, stage_seconds, work
from qcrd_ray.report.examples import differences, examples_section, extremes
from qcrd_ray.report.html import Markup, join, model_name, tag
from qcrd_ray.report.judge import judge_section, read_judges
from qcrd_ray.report.learning import learning_section
from qcrd_ray.report.measured import Measured, read_measured
from qcrd_ray.report.overview import discriminator_quality, overview, tiles
from qcrd_ray.report.rationales import read_rows, rows_section
from qcrd_ray.report.rounds import Training, read_training
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import Call

_CONTENTS = (
    ("asked", "The recipe"),
    ("rows", "Rows and votes"),
    ("learning", "Learning"),
    ("accuracy", "Accuracy"),
    ("judge", "The judge"),
    ("examples", "Examples"),
    ("effort", "Time and tokens"),
    ("recipe", "Recipe and versions"),
)
# A browser may load and run nothing for this page but its own style: its texts come from models and
# users.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(folder: RunFolder) -> Path:
    """Write report.html into a run folder, whole or half-finished, and return its path.

    Raises:
        UserError: the folder is no run folder.
    """
    if not folder.recipe.is_file():
        raise UserError(
            f"{folder.root} holds no recipe.yaml, so it is no run folder; give the folder that the"
            " recipe's `run` names"
        )
    write_text(folder.report, render(folder))
    return folder.report


def render(folder: RunFolder) -> str:
    """The page's HTML."""
    recipe = load_recipe(folder.recipe)
    rows = [each for split in ("train", "test") if (each := read_rows(recipe, folder, split))]
    objectives = dict.fromkeys([recipe.objective.name, *recipe.evaluate.baselines])
    trainings = [each for name in objectives if (each := read_training(folder, name))]
    own = next((each for each in trainings if each.objective == recipe.objective.name), None)
    measured = read_measured(folder)
    judges = read_judges(folder.student_training(recipe)) if recipe.judge.samples else None
    calls = json.loads(folder.versions.read_text()) if folder.versions.exists() else []
    body = join(
        tag(
            "header",
            tag("h1", recipe.name),
            _subtitle(calls),
            tiles(measured),
            discriminator_quality(own),
            _contents(recipe),
        ),
        tag(
            "main",
            overview(recipe),
            rows_section(rows),
            learning_section(trainings, recipe.objective.name),
            measured_section(measured),
            judge_section(recipe, judges, measured),
            _examples(recipe, folder, own, measured),
            effort_section(stage_seconds(folder), work(folder, trainings, judges)),
            provenance_section(recipe, calls),
        ),
        tag(
            "footer",
            f"Written by qcrd_ray {__version__} from the files of the run folder. It loads nothing"
            " and runs no script.",
        ),
    )
    return _document(f"{recipe.name}: a run of qcrd_ray", body)


def _examples(
    recipe: Recipe, folder: RunFolder, own: Training | None, measured: Measured | None
) -> Markup:
    """The section of examples, from the run's own training and its first baseline."""
    differing = None
    if measured and measured.baselines:
        first, second = (
            _reasoning_head(measured, name) for name in ("student", measured.baselines[0])
        )
        differing = (
            model_name(*first),
            model_name(*second),
            *differences(folder, measured, first=first, second=second, seed=recipe.seed),
        )
    return examples_section(extremes(own) if own else None, differing)


def _reasoning_head(measured: Measured, name: str) -> tuple[str, str]:
    """A model with its rationale head, where it has one; else with its only head."""
    heads = measured.heads(name)
    return name, "rationale" if "rationale" in heads else heads[0]


def _subtitle(calls: list[Call]) -> Markup:
    when = (
        f", last worked on {datetime.fromisoformat(calls[-1]['time']):%Y-%m-%d %H:%M} UTC"
        if calls
        else ""
    )
    return tag(
        "p",
        f"A run of qcrd_ray: quality-guided contrastive rationale distillation{when}.",
        class_="muted",
    )


def _contents(recipe: Recipe) -> Markup:
    shown = [each for each in _CONTENTS if each[0] != "judge" or recipe.judge.samples]
    return tag(
        "nav",
        tag("ul", *(tag("li", tag("a", name, href=f"#{id}")) for id, name in shown)),
        aria_label="Contents",
    )


def _document(title: str, body: Markup) -> str:
    style = Markup(
        resources.files("qcrd_ray.report").joinpath("page.css").read_text(encoding="utf-8")
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"
