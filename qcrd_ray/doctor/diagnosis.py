"""How checks are run: all of them for `qcrd doctor`, or until one fails at the start of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray import teacher
from qcrd_ray.cluster import resources as cluster
from qcrd_ray.doctor.cluster_checks import (
    STAGES,
    check_cluster,
    check_ports,
    check_shared_folder,
)
from qcrd_ray.doctor.memory_checks import check_memory
from qcrd_ray.doctor.recipe_checks import RECIPE_CHECKS, check_python, check_versions
from qcrd_ray.errors import UserError
from qcrd_ray.models import pretrained
from qcrd_ray.recipe import OpenAITeacher, Recipe
from qcrd_ray.recipe.file import load_recipe


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check, as it is printed."""

    name: str
    ok: bool
    text: str


def diagnose(path: Path | None, overrides: Sequence[str] = ()) -> list[CheckResult]:
    """Run all checks, each even where another failed.

    A recipe and the cluster are checked only where a recipe is given and can be read.
    """
    results = [_run("versions", check_versions), _run("python", check_python)]
    if path is None:
        return results
    try:
        recipe = load_recipe(path, overrides)
    except UserError as error:
        return [*results, CheckResult(name="recipe", ok=False, text=str(error))]
    results.append(CheckResult(name="recipe", ok=True, text=f"{path} is valid"))
    with pretrained.remember_failures():
        results += [
            _run(name, lambda check=check: check(recipe)) for name, check in RECIPE_CHECKS.items()
        ]
        # a run does this when, and only if, something is left to ask
        if isinstance(endpoint := recipe.teacher, OpenAITeacher):
            results.append(_run("teacher's endpoint", lambda: teacher.probe(endpoint)))
        return [*results, *_diagnose_cluster(recipe)]


def preflight(recipe: Recipe) -> None:
    """Run the checks that need no cluster.

    Raises:
        UserError: of the first check that fails.
    """
    check_versions()
    for check in RECIPE_CHECKS.values():
        check(recipe)


def preflight_cluster(recipe: Recipe, stages: Sequence[str] = STAGES) -> None:
    """Run those checks of the connected cluster that take seconds, for a run of ``stages``.

    Raises:
        UserError: of the first check that fails.
    """
    check_cluster(recipe, stages)
    check_shared_folder(recipe)


def _diagnose_cluster(recipe: Recipe) -> list[CheckResult]:
    try:
        cluster.connect(recipe.ray)
    except UserError as error:
        return [CheckResult(name="cluster", ok=False, text=str(error))]
    checks = {
        "cluster": check_cluster,
        "memory": check_memory,
        "ports": check_ports,
        "shared folder": check_shared_folder,
    }
    return [_run(name, lambda check=check: check(recipe)) for name, check in checks.items()]


def _run(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name=name, ok=True, text=check())
    except UserError as error:
        return CheckResult(name=name, ok=False, text=str(error))
