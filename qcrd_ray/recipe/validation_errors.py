"""Validation errors of a recipe in the user's words: place, key, expectation, suggestion."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from qcrd_ray.recipe import Recipe, Section
from qcrd_ray.recipe.introspection import fields, keys, sections

Keys = dict[tuple, str]  # where each key stands, by its path: {("train", "rounds"): "demo.yaml:12"}

_EXPECTED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "a text (put it in quotes if YAML reads it as something else)",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "too_long": "at most {max_length} items",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "string_pattern_mismatch": "a text of the form {pattern}",
    "union_tag_invalid": "{expected_tags}",
}


def with_empty_sections(tree: Any, model: type[Section] = Recipe) -> Any:
    """The tree with {} for each section that has no keys.

    A section whose keys are all commented out is one.
    """
    if not isinstance(tree, dict):
        return tree
    filled = {}
    for key, value in tree.items():
        section = fields(model)[key].annotation if key in fields(model) else None
        if isinstance(section, type) and issubclass(section, Section):
            value = with_empty_sections({} if value is None else value, section)
        filled[key] = value
    return filled


def explain(error: ValidationError, tree: dict, where: Keys, name: str) -> str:
    """All mistakes of a recipe, one a line: ``file:line: dotted.key: what is wrong``."""
    mistakes: dict[tuple, list[ErrorDetails]] = {}
    for mistake in error.errors(include_url=False):
        mistakes.setdefault(_path(mistake, tree), []).append(mistake)
    return "\n".join(
        f"{_place(path, where, name)}: {_describe(path, several, tree)}"
        for path, several in mistakes.items()
    )


def _path(mistake: ErrorDetails, tree: Any) -> tuple:
    """The keys that lead to a mistake: pydantic's path without the names of union members in it."""
    path: list[int | str] = []
    loc = mistake["loc"]
    for place, part in enumerate(loc):
        if _holds(tree, part):
            tree = tree[part]
            path.append(part)
        elif mistake["type"] == "missing" and place == len(loc) - 1:
            path.append(part)
    if mistake["type"].startswith("union_tag"):
        path.append("source")
    return tuple(path)


def _holds(tree: Any, part: int | str) -> bool:
    if isinstance(tree, list):
        return isinstance(part, int) and part < len(tree)
    return isinstance(tree, dict) and part in tree


def _place(path: tuple, where: Keys, name: str) -> str:
    """The line of a key (of its section, if the key is missing), and the overrides inside it."""
    place = next(
        (where[path[:length]] for length in range(len(path), 0, -1) if path[:length] in where), name
    )
    inside = dict.fromkeys(
        source
        for at, source in where.items()
        if at[: len(path)] == path and source.startswith("--set") and source != place
    )
    return f"{place} (with {', '.join(inside)})" if inside else place


def _describe(path: tuple, mistakes: list[ErrorDetails], tree: dict) -> str:
    key, first = ".".join(map(str, path)), mistakes[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "extra_forbidden":
        return f"{key}: there is no such key{_suggest(path, tree)}"
    if kind == "union_tag_not_found":
        members = sections(fields(Recipe)[path[0]].annotation)
        sources = [
            repr(source)
            for member in members
            for source in typing.get_args(member.model_fields["source"].annotation)
        ]
        return f"{key}: is missing; expected {' or '.join(sources)}"
    if kind == "value_error":
        return f"{key}: {context['error']}" if key else str(context["error"])
    expected = [
        _EXPECTED[m["type"]].format(**m.get("ctx", {})) for m in mistakes if m["type"] in _EXPECTED
    ]
    if not expected:
        return f"{key}: {first['msg']}, not {first['input']!r}"
    if kind == "union_tag_invalid":
        return f"{key}: expected {expected[0].replace(', ', ' or ')}, not {context['tag']!r}"
    return f"{key}: expected {' or '.join(dict.fromkeys(expected))}, not {first['input']!r}"


def _suggest(path: tuple, tree: dict) -> str:
    """The key that was probably meant: a similar one beside it, or one of its name elsewhere."""
    model: Any = Recipe
    for part in path[:-1]:
        tree = tree[part]
        model = _section(fields(model)[part].annotation if isinstance(part, str) else model, tree)
    known, last = list(fields(model)), str(path[-1])
    if near := difflib.get_close_matches(last, known, n=1, cutoff=0.6):
        return f"; did you mean {'.'.join(map(str, (*path[:-1], near[0])))}?"
    elsewhere = [key for key in keys(Recipe) if key.rsplit(".", 1)[-1] == last]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; {'.'.join(map(str, path[:-1])) or 'a recipe'} has: {', '.join(known)}"


def _section(annotation: Any, tree: Any) -> Any:
    """The section that the tree is read as.

    Of a union it is the one with the tree's `source`, of a list the section of its items.
    """
    several = sections(annotation)
    if isinstance(tree, dict) and len(several) > 1:
        several = [
            s
            for s in several
            if tree.get("source") in typing.get_args(s.model_fields["source"].annotation)
        ] or several
    return several[0]
