"""The teacher: whoever answers the questions, behind one small protocol (`base.Teacher`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qcrd_ray.recipe import Recipe, RecordedTeacher
from qcrd_ray.teacher.base import Answer, Ask, Prompt, Refusal, Teacher, TeacherError
from qcrd_ray.teacher.recording import Recording

__all__ = ["Answer", "Ask", "Prompt", "Refusal", "Teacher", "TeacherError", "build_teacher", "teacher_for"]


def build_teacher(recipe: Recipe) -> Teacher:
    """The recipe's teacher, not started."""
    if isinstance(recipe.teacher, RecordedTeacher):
        return Recording(recipe.teacher, recipe.sampling, seed=recipe.seed)
    from qcrd_ray.teacher.served import ServedTeacher  # Ray Serve and vLLM take seconds to import, and a recording needs neither

    return ServedTeacher(recipe)


@contextmanager
def teacher_for(recipe: Recipe) -> Iterator[Teacher]:
    """The recipe's teacher for as long as the `with` block: started by the first stage that has something to ask, stopped at the end."""
    teacher = build_teacher(recipe)
    try:
        yield teacher
    finally:
        teacher.stop()
