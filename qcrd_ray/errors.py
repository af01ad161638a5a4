"""Errors that the user can fix.

A :class:`UserError` can be fixed by changing a recipe, a file or a command line: `qcrd` prints its
text without a traceback and exits with 1. Everything else is a bug or a fault, whose traceback goes
to a file.
"""

from __future__ import annotations

import site
import sysconfig
import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class UserError(ValueError):
    """A mistake that the user can fix: says where it is, what was expected, and what to do."""


class MissingResource(UserError):
    """The cluster cannot give what the recipe asks for.

    Names the resource, how much is asked, and how much there is.
    """


def headline(error: BaseException) -> str:
    """An error on one line; with the place in a module of the user's own, if it comes from one.

    "NameError: name 'x' is not defined (my_task.py:12)"
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
    place = own_place(error)
    return f"{said} ({place})" if place and place not in said else said


def own_place(error: BaseException) -> str:
    """Where an error passed last through code of the user's own: "my_task.py:12"; "": it did not.

    Libraries and this package are not the user's.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    others = (*site.getsitepackages(), sysconfig.get_path("stdlib"), _PACKAGE, "<")
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others)
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
