"""Where a row holds the fields of a question: the syntax of `data.columns`.

    question: Body                          a column
    choices: choices.text                   a path: keys of nested values, places in lists, or one
                                            key of each item of a list
    question: "{Body} {Question}"           a text around columns or paths; {{ and }} are braces
    choices: [option_a, option_b, "{c}."]   several of these, as a list; empty ones at its end are
                                            left out

A column whose own name holds a point is taken before the path that the name could be.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from qcrd_ray.errors import UserError

Column = str | tuple[str, ...]

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


def paths(column: Column) -> list[str]:
    """The columns or paths that ``column`` reads.

    Raises:
        UserError: braces do not close, or hold nothing.
    """
    if not isinstance(column, str):
        return [path for part in column for path in paths(part)]
    if "{" not in column and "}" not in column:
        return [column]
    pieces = list(_PIECE.finditer(column))
    if any(piece[0] in ("{", "}") for piece in pieces):
        raise UserError(
            f"{column!r}: each brace must close around a column's name; write {{{{ and }}}} for"
            " braces of the text"
        )
    return [piece[1].strip() for piece in pieces if piece[1]]


def root(path: str, present: Collection[str]) -> str:
    """The column that a path begins with."""
    return path if path in present else path.split(".", 1)[0]


def pick(row: Mapping[str, object], column: Column) -> object:
    """The value of ``column`` in ``row``, None if it is missing.

    Raises:
        ValueError: a path leads nowhere, or a text cannot be filled.
    """
    if not isinstance(column, str):
        values = [pick(row, part) for part in column]
        while values and is_empty(values[-1]):
            values.pop()
        return values or None
    if column in row:
        return row[column]
    if "{" in column or "}" in column:
        return _filled(row, column)
    return _look_up(row, column)


def is_empty(value: object) -> bool:
    """Whether a value is None, a blank text, or NaN, as tables hold missing values."""
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and value != value)
    )


def _filled(row: Mapping[str, object], template: str) -> str | None:
    """The text with its columns filled in; None if all of them are empty."""
    values = {path: _look_up(row, path) for path in _paths(template)}
    empty = [path for path, value in values.items() if is_empty(value)]
    if len(empty) == len(values):
        return None
    if empty:
        raise ValueError(f"{', '.join(empty)} is empty")
    for path, value in values.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{path} must be a text, not {type(value).__name__}")
    return _PIECE.sub(
        lambda piece: str(values[piece[1].strip()]) if piece[1] else piece[0][0], template
    )


@lru_cache(maxsize=256)
def _paths(template: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths(template)))


def _look_up(row: Mapping[str, object], path: str) -> object:
    if path in row or "." not in path:
        return row.get(path)
    first, *rest = path.split(".")
    value = row.get(first)
    for part in rest:
        value = _step(value, part, path)
    return value


def _step(value: object, part: str, path: str) -> object:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and part.isdigit():
        return value[int(part)] if int(part) < len(value) else None
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return [item.get(part) for item in value]
    raise ValueError(f"{path}: there is no {part!r} in a {type(value).__name__}")
