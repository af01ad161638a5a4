"""The teacher: whoever answers the questions, behind one small protocol (`base.Teacher`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qcrd_ray.cluster.resources import Bundle
from qcrd_ray.recipe import OpenAITeacher, Recipe, ServeTeacher, TeacherRecipe
from qcrd_ray.teacher.base import (
    Prompt,
    Stopped,
    Teacher,
    TeacherAnswer,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)
from qcrd_ray.teacher.model import uses_chat
from qcrd_ray.teacher.openai import OpenAICompatible, describe, probe
from qcrd_ray.teacher.recording import Recording, read_recording

__all__ = [
    "TeacherAnswer",
    "TeacherRequest",
    "Prompt",
    "TeacherRefusal",
    "Stopped",
    "Teacher",
    "TeacherError",
    "build_teacher",
    "bundles",
    "check",
    "probe",
    "teacher_for",
]


def build_teacher(recipe: Recipe) -> Teacher:
    """The recipe's teacher, not started."""
    if isinstance(recipe.teacher, OpenAITeacher):
        return OpenAICompatible(recipe)
    if not isinstance(recipe.teacher, ServeTeacher):
        return Recording(recipe.teacher, recipe.sampling, seed=recipe.seed)
    from qcrd_ray.teacher.serve import ServedTeacher

    return ServedTeacher(recipe)


@contextmanager
def teacher_for(recipe: Recipe) -> Iterator[Teacher]:
    """The recipe's teacher for as long as the `with` block: started by the first stage that has
    something to ask, stopped at the end.
    """
    teacher = build_teacher(recipe)
    try:
        yield teacher
    finally:
        teacher.stop()


def check(recipe: TeacherRecipe) -> str:
    """What can be known of a teacher without starting it, in words. Raises UserError for a
    recording or a model that cannot be used.

    An endpoint is not asked here, as a run with nothing left to ask does not need it; :func:`probe`
    does.
    """
    if isinstance(recipe, OpenAITeacher):
        return describe(recipe)
    if not isinstance(recipe, ServeTeacher):
        recorded = read_recording(recipe)
        return (
            f"{recipe.path}: {sum(map(len, recorded.values()))} completions of {len(recorded)}"
            " questions"
        )
    return (
        f"{recipe.model}, asked"
        f" {'with its chat template' if uses_chat(recipe) else 'in plain text'}"
    )


def bundles(recipe: TeacherRecipe) -> list[Bundle]:
    """What the teacher takes of the cluster from its start, one bundle per process. Needs a
    connected Ray.
    """
    if not isinstance(recipe, ServeTeacher):
        return []
    from qcrd_ray.teacher.serve import replica_bundles

    return replica_bundles(recipe) * max(recipe.min_replicas, 1)
