"""How checks are run: all of them for `qcrd doctor`, or until one fails at the start of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.doctor.recipe_checks import check_python, check_versions, checks_of
from qcrd_ray.errors import UserError
from qcrd_ray.models import pretrained
from qcrd_ray.recipe import OpenAITeacher, Recipe
from qcrd_ray.recipe.file import load_recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check, as it is printed."""

    name: str
    ok: bool
    text: str


def diagnose(
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    starting: Callable[[str], object] = len,
) -> Iterator[CheckResult]:
    """Run all checks, each even where another failed, and yield each result as it is there.

    A recipe and the cluster are checked only where a recipe is given and can be read.

    Args:
        starting: called with the name of each check before it begins.
    """

    def run(checks: Mapping[str, Callable[[], str]]) -> Iterator[CheckResult]:
        for name, check in checks.items():
            starting(name)
            yield _run(name, check)

    yield from run({"versions": check_versions, "python": check_python})
    if path is None:
        return
    starting("recipe")
    try:
        recipe = load_recipe(path, overrides)
    except UserError as error:
        yield CheckResult(name="recipe", ok=False, text=str(error))
        return
    yield CheckResult(name="recipe", ok=True, text=f"{path} is valid")
    with pretrained.remember_failures():
        yield from run(checks_of(recipe, Questions(recipe)))
        # a run does this when, and only if, something is left to ask
        if isinstance(endpoint := recipe.teacher, OpenAITeacher):
            yield from run({"teacher's endpoint": lambda: teacher.probe(endpoint)})
        starting("cluster")
        yield from _diagnose_cluster(recipe)


def preflight(recipe: Recipe) -> Questions:
    """Run the checks that need no cluster, and return the questions that they read.

    Raises:
        UserError: of the first check that fails.
    """
    check_versions()
    questions = Questions(recipe)
    for name, check in checks_of(recipe, questions).items():
        for line in check().splitlines():
            if line.startswith("WARNING: "):
                log.warning("%s: %s", name, line.removeprefix("WARNING: "))
    return questions


def preflight_cluster(recipe: Recipe, stages: Sequence[str] = STAGES) -> None:
    """Run those checks of the connected cluster that take seconds, for a run of ``stages``.

    Raises:
        UserError: of the first check that fails.
    """
    check_cluster(recipe, stages)
    check_shared_folder(recipe)


def _diagnose_cluster(recipe: Recipe) -> Iterator[CheckResult]:
    try:
        cluster.connect(recipe.ray)
    except UserError as error:
        yield CheckResult(name="cluster", ok=False, text=str(error))
        return
    checks = {
        "cluster": check_cluster,
        "memory": check_memory,
        "ports": check_ports,
        "shared folder": check_shared_folder,
    }
    for name, check in checks.items():
        yield _run(name, lambda check=check: check(recipe))


def _run(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name=name, ok=True, text=check())
    except UserError as error:
        return CheckResult(name=name, ok=False, text=str(error))
