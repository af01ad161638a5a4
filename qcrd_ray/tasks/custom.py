"""A task of the user's own, `task.kind: package.module:Class`: import it and check its methods."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

from qcrd_ray.errors import UserError, headline
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks.base import Task

# What a task must have, from the protocol.
METHODS = {
    name: inspect.signature(method)
    for name, method in vars(Task).items()
    if inspect.isfunction(method) and name[0] != "_"
}


def load_custom_task(recipe: TaskRecipe) -> Task:
    """The task that ``recipe.kind`` names, made from the recipe.

    Raises:
        UserError: there is no such module or class, its code fails, or the class is no task: names
            the method that is missing or takes other arguments.
    """
    name, _, class_name = recipe.kind.partition(":")
    module = _import(name, recipe.kind)
    task_class = getattr(module, class_name, None)
    if not inspect.isclass(task_class):
        classes = [each for each, value in vars(module).items() if inspect.isclass(value)]
        near = difflib.get_close_matches(class_name, classes, n=1, cutoff=0.5)
        raise UserError(
            f"task.kind: {name} has no class {class_name}"
            + (f"; did you mean {name}:{near[0]}?" if near else "")
        )
    for method, expected in METHODS.items():
        _check_method(task_class, method, expected, recipe.kind)
    if not _takes(task_class, 1):
        raise UserError(
            f"task.kind: {recipe.kind} is made with one argument, the recipe's task section; it"
            f" takes {inspect.signature(task_class)}"
        )
    try:
        return cast(Callable[[TaskRecipe], Task], task_class)(recipe)
    except UserError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise UserError(f"task.kind: {recipe.kind} cannot be made: {headline(error)}") from error


def _import(name: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise UserError(
                f"task.kind: the module {name} of {kind} needs {error.name}, which is not installed"
            ) from error
        raise UserError(
            f"task.kind: {kind} needs the module {name}, and there is no {error.name} here: call"
            " `qcrd` from its folder, or install it, on every node of a cluster (`ray job submit"
            " --working-dir` brings the folder along)"
        ) from error
    except Exception as error:  # a typo in it, say
        raise UserError(
            f"task.kind: the module {name} of {kind} cannot be imported: {headline(error)}"
        ) from error


def _check_method(task_class: type, method: str, expected: inspect.Signature, kind: str) -> None:
    arguments = ", ".join(list(expected.parameters)[1:])
    function = getattr(task_class, method, None)
    if not callable(function) or getattr(function, "__isabstractmethod__", False):
        raise UserError(
            f"task.kind: {kind} is no task: it has no method {method}({arguments}); see"
            " qcrd_ray/tasks/base.py"
        )
    if not _takes(function, len(expected.parameters)):
        raise UserError(
            f"task.kind: {kind}: {method} is called as {method}({arguments}), and takes"
            f" {inspect.signature(function)}"
        )


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True
