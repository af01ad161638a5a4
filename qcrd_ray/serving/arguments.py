"""The arguments of the application builder: a student folder and the recipe's `serve` keys.

They come from Python, from a Serve config or from a command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from qcrd_ray.errors import UserError
from qcrd_ray.inference import choose_engine
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.recipe import ServingRecipe

_SERVES_OWN = ("host", "port")  # Ray Serve listens, not its applications


def open_student(folder: str | Path, recipe: ServingRecipe) -> StudentFolder:
    """The student of a folder, trusted as far as the recipe says. Raises UserError."""
    return StudentFolder.open(
        folder, trust_remote_code=recipe.trust_remote_code, trust_task=recipe.trust_task
    )


def read_arguments(args: Mapping[str, Any]) -> tuple[StudentFolder, ServingRecipe]:
    """The student and the recipe in ``{"student": folder, key: value ...}``.

    Values may be texts, as ``serve run`` passes them.

    Raises:
        UserError: names the key that is missing, unknown or wrong, or says why the folder is no
            student.
    """
    keys = dict(args)
    student = keys.pop("student", None)
    if not isinstance(student, str) or not student:
        raise UserError(
            "student: is missing; give the student/ folder of a finished run, as the cluster's"
            " nodes see it"
        )
    for key in _SERVES_OWN:
        if key in keys:
            raise UserError(
                f"{key}: an application cannot say where Ray Serve listens; set http_options.{key}"
                " of the Serve config instead"
            )
    known = [key for key in ServingRecipe.model_fields if key not in _SERVES_OWN]
    return _read(student, keys, known)


def _read(
    student: str, keys: Mapping[str, Any], known: Sequence[str]
) -> tuple[StudentFolder, ServingRecipe]:
    for key in keys:
        if key not in known:
            raise UserError(f"{key}: there is no such key; expected student, {', '.join(known)}")
    try:
        recipe = ServingRecipe.model_validate(
            {key: _parsed(key, value) for key, value in keys.items()}
        )
    except ValidationError as error:
        mistakes = (
            f"{'.'.join(map(str, m['loc']))}: {m['msg']}, not {m['input']!r}".lstrip(": ")
            for m in error.errors()
        )
        raise UserError("\n".join(mistakes)) from None
    folder = open_student(student, recipe)
    # a pairing that cannot work is found here, not by a replica that fails to start
    choose_engine(folder.path, recipe.engine, trust_remote_code=recipe.trust_remote_code)
    return folder, recipe


def read_settings(
    student: Path, given: Mapping[str, Any], overrides: Sequence[str]
) -> ServingRecipe:
    """The recipe of a command line.

    Args:
        given: options; those that are None are left out.
        overrides: such as ``max_batch_size=16``; they replace options.
    """
    keys = {key: value for key, value in given.items() if value is not None}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {override}: expected key=value, e.g. --set max_batch_size=16")
        name, _, part = key.strip().partition(".")
        if part:  # replica.cpus=2
            inner = keys.get(name, {})
            if isinstance(inner, str):  # replica={cpus: 2}
                inner = _yaml(name, inner)
            if not isinstance(inner, dict):
                raise UserError(f"--set {override}: {name} is {inner!r} and has no keys")
            keys[name] = {**inner, part: _yaml(override, value)}
        else:
            keys[name] = value
    return _read(str(student), keys, list(ServingRecipe.model_fields))[1]


def _parsed(key: str, value: Any) -> Any:
    """A text from a command line as YAML reads it: ``replicas=2`` is a number."""
    if not isinstance(value, str) or ServingRecipe.model_fields[key].annotation in (
        str,
        str | None,
    ):
        return value
    return _yaml(key, value)


def _yaml(key: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{key}: {value!r} is not YAML") from error
