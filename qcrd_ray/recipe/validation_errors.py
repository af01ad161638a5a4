"""Pydantic's complaints about a recipe in the user's words: where, which key, what was expected,
and the key that was probably meant.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from qcrd_ray.recipe import Recipe, Section

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
    """The tree with ``section:`` followed by nothing (all its keys commented out, say) taken as a
    section without keys.
    """
    if not isinstance(tree, dict):
        return tree
    filled = {}
    for key, value in tree.items():
        section = _fields(model).get(key)
        if isinstance(section, type) and issubclass(section, Section):
            value = with_empty_sections({} if value is None else value, section)
        filled[key] = value
    return filled


def explain(error: ValidationError, tree: dict, where: Keys, name: str) -> str:
    """All mistakes of a recipe, one a line: ``file:line: dotted.key: what is wrong``."""
    mistakes: dict[tuple, list[dict]] = {}
    for mistake in error.errors(include_url=False):
        mistakes.setdefault(_path(mistake, tree), []).append(mistake)
    return "\n".join(
        f"{_place(path, where, name)}: {_say(path, several, tree)}"
        for path, several in mistakes.items()
    )


def _path(mistake: dict, tree: Any) -> tuple:
    """The keys that lead to a mistake: pydantic's path without the members of unions that it puts
    between them.
    """
    path, loc = [], mistake["loc"]
    for place, part in enumerate(loc):
        if (isinstance(tree, dict) and part in tree) or (
            isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        ):
            tree = tree[part]
            path.append(part)
        elif mistake["type"] == "missing" and place == len(loc) - 1:
            path.append(part)
    if mistake["type"].startswith("union_tag"):
        path.append("source")
    return tuple(path)


def _place(path: tuple, where: Keys, name: str) -> str:
    """Where a key stands (for one that is missing, its section), and the overrides inside it that
    may have made the mistake.
    """
    place = next(
        (where[path[:length]] for length in range(len(path), 0, -1) if path[:length] in where), name
    )
    inside = dict.fromkeys(
        said
        for at, said in where.items()
        if at[: len(path)] == path and said.startswith("--set") and said != place
    )
    return f"{place} (with {', '.join(inside)})" if inside else place


def _say(path: tuple, mistakes: list[dict], tree: dict) -> str:
    key, first = ".".join(map(str, path)), mistakes[0]
    kind = first["type"]
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "extra_forbidden":
        return f"{key}: there is no such key{_near(path, tree)}"
    if kind == "union_tag_not_found":
        members = _sections(_fields(Recipe)[path[0]])
        sources = [
            repr(source)
            for member in members
            for source in typing.get_args(member.model_fields["source"].annotation)
        ]
        return f"{key}: is missing; expected {' or '.join(sources)}"
    if kind == "value_error":
        return f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    expected = [
        _EXPECTED[m["type"]].format(**m.get("ctx", {})) for m in mistakes if m["type"] in _EXPECTED
    ]
    if not expected:
        return f"{key}: {first['msg']}, not {first['input']!r}"
    if kind == "union_tag_invalid":
        return f"{key}: expected {expected[0].replace(', ', ' or ')}, not {first['ctx']['tag']!r}"
    return f"{key}: expected {' or '.join(dict.fromkeys(expected))}, not {first['input']!r}"


def _near(path: tuple, tree: dict) -> str:
    """The known key that was probably meant: beside this one, or of this name elsewhere in the
    recipe.
    """
    model: Any = Recipe
    for part in path[:-1]:
        tree = tree[part]
        model = _section(_fields(model)[part] if isinstance(part, str) else model, tree)
    known, last = list(_fields(model)), str(path[-1])
    if near := difflib.get_close_matches(last, known, n=1, cutoff=0.6):
        return f"; did you mean {'.'.join(map(str, (*path[:-1], near[0])))}?"
    elsewhere = [key for key in _all_keys(Recipe, "") if key.rsplit(".", 1)[-1] == last]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; {'.'.join(map(str, path[:-1])) or 'a recipe'} has: {', '.join(known)}"


def _fields(model: type[Section]) -> dict[str, Any]:
    """The keys of a section as the file spells them, each with its type."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that a type mentions: itself, or the members of a union, a tuple or an
    annotation.
    """
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _sections(part)]


def _section(annotation: Any, tree: Any) -> Any:
    """The section that the tree is read as; a union of several is told apart by `source`. A list
    leads to its items' section.
    """
    several = _sections(annotation)
    if isinstance(tree, dict) and len(several) > 1:
        several = [
            s
            for s in several
            if tree.get("source") in typing.get_args(s.model_fields["source"].annotation)
        ] or several
    return several[0]


def _all_keys(model: type[Section], prefix: str) -> Iterator[str]:
    for key, annotation in _fields(model).items():
        yield prefix + key
        for section in _sections(annotation):
            yield from _all_keys(section, f"{prefix}{key}.")
