"""The key of the teacher's endpoint: read on the node that asks, when it asks."""

from __future__ import annotations

import os

from qcrd_ray.recipe import OpenAITeacher
from qcrd_ray.run.secrets import read_api_key


def read_key(recipe: OpenAITeacher) -> str | None:
    """The key from `teacher.api_key_file`, else from the variable `teacher.api_key_env`, else None.

    Raises:
        UserError: see :func:`qcrd_ray.run.secrets.read_api_key`.
    """
    return read_api_key(section="teacher", file=recipe.api_key_file, variable=recipe.api_key_env)


def describe_key(recipe: OpenAITeacher) -> str:
    """Where the key comes from, in words without the key."""
    if recipe.api_key_file is not None:
        return f"with the key in {recipe.api_key_file}"
    return (
        f"with the key in ${recipe.api_key_env}"
        if recipe.api_key_env in os.environ
        else f"without a key (${recipe.api_key_env} is unset)"
    )
