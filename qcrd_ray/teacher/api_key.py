"""The key of an endpoint: read on the node that asks, when it asks; never logged, never pickled,
never in the run folder.
"""

from __future__ import annotations

import os
import platform

from qcrd_ray.data.json_lines import expand_path
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import OpenAITeacher


def read_key(recipe: OpenAITeacher) -> str | None:
    """The key from `teacher.api_key_file`, else from the variable `teacher.api_key_env`; None where
    neither is given.

    Raises:
        UserError: the file cannot be read, or what it (or the variable) holds is no key. The text
            does not hold the key.
    """
    if recipe.api_key_file is None:
        where, key = (
            f"the variable {recipe.api_key_env} (teacher.api_key_env)",
            os.environ.get(recipe.api_key_env, "").strip(),
        )
        if not key:
            return None
    else:
        file = expand_path(recipe.api_key_file)
        where = f"{file} (teacher.api_key_file)"
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UserError(
                f"teacher.api_key_file: cannot read {file} on {platform.node()}: {reason}"
            ) from None
    if (
        not key
        or not key.isascii()
        or any(letter.isspace() or not letter.isprintable() for letter in key)
    ):
        raise UserError(
            f"teacher: {where} holds no key: expected one line of letters, digits and signs,"
            " without blanks"
        )
    return key


def describe_key(recipe: OpenAITeacher) -> str:
    """Where the key comes from, in words that may be printed."""
    if recipe.api_key_file is not None:
        return f"with the key in {recipe.api_key_file}"
    return (
        f"with the key in ${recipe.api_key_env}"
        if os.environ.get(recipe.api_key_env)
        else f"without a key (${recipe.api_key_env} is unset)"
    )
