"""The teacher: the source of the rationales, behind one protocol (:class:`base.Teacher`).

It may import models, tasks, run, cluster, data and recipe; the rationales stage asks it, and the
doctor checks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from qcrd_ray.cluster.resources import Bundle
from qcrd_ray.recipe import OpenAITeacher, Recipe, RecordedTeacher, ServeTeacher, TeacherRecipe
from qcrd_ray.runs.folder import resolve
from qcrd_ray.teacher.base import (
    Deployable,
    Prompt,
    Stopped,
    Teacher,
    TeacherAnswer,
    TeacherAway,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
    Watched,
)
from qcrd_ray.teacher.model import uses_chat
from qcrd_ray.teacher.openai import SPENT, OpenAICompatible, describe, probe
from qcrd_ray.teacher.recording import COPY, Recording, RecordingIndex

__all__ = [
    "Deployable",
    "Prompt",
    "Stopped",
    "Teacher",
    "TeacherAnswer",
    "TeacherAway",
    "TeacherError",
    "TeacherRefusal",
    "TeacherRequest",
    "build_teacher",
    "bundles",
    "check",
    "probe",
    "teacher_for",
    "trouble",
]


def build_teacher(recipe: Recipe) -> Teacher:
    """The recipe's teacher, not started."""
    teacher = recipe.teacher
    if isinstance(teacher, OpenAITeacher):
        ledger = resolve(recipe.run) / "rationales" / SPENT
        return OpenAICompatible(teacher, recipe.sampling, ledger=ledger)
    if isinstance(teacher, RecordedTeacher):
        copy = resolve(recipe.run) / "rationales" / COPY
        return Recording(teacher, recipe.sampling, seed=recipe.seed, copy=copy)
    from qcrd_ray.teacher.serve import ServedTeacher, application_name

    return ServedTeacher(
        teacher,
        recipe.sampling,
        seed=recipe.seed,
        application=application_name(recipe.name, run=resolve(recipe.run)),
        requests_in_flight=recipe.generation.actors * recipe.generation.requests_in_flight,
        schedule_timeout_s=recipe.ray.schedule_timeout_s,
    )


@contextmanager
def teacher_for(recipe: Recipe) -> Iterator[Teacher]:
    """The recipe's teacher, stopped when the block ends.

    It is started by the first call that has something to ask.
    """
    teacher = build_teacher(recipe)
    try:
        yield teacher
    finally:
        teacher.stop()


def trouble(teacher: Teacher) -> str:
    """Why ``teacher`` does not answer at the moment, in words; "" where it does, or cannot tell.

    A served teacher looks by itself while a request waits, so that asking ends when it is dead;
    this is for a line of progress.

    Raises:
        Stopped: it will not answer any more.
    """
    return teacher.trouble() if isinstance(teacher, Watched) else ""


def check(recipe: TeacherRecipe) -> str:
    """Check a teacher without starting it, and describe it in words.

    An endpoint is not asked here, since a run with nothing left to ask does not need it;
    :func:`probe` asks it.

    Raises:
        UserError: the recording or the model cannot be used.
    """
    if isinstance(recipe, OpenAITeacher):
        return describe(recipe)
    if isinstance(recipe, RecordedTeacher):
        with closing(RecordingIndex.build(recipe)) as index:
            return f"{recipe.path}: {len(index)} completions of {index.questions} questions"
    return (
        f"{recipe.model}, asked"
        f" {'with its chat template' if uses_chat(recipe) else 'in plain text'}"
    )


def bundles(recipe: TeacherRecipe) -> list[Bundle]:
    """The resources that the teacher takes, one bundle per process. Ray must be connected."""
    if not isinstance(recipe, ServeTeacher):
        return []
    from qcrd_ray.teacher.serve import replica_bundles

    return replica_bundles(recipe) * max(recipe.min_replicas, 1)
