"""Recipes as YAML files: read with overrides, checked with located errors, written again.

All mistakes of a file are reported together, each with its line, its dotted key and what was
expected. Environment variables are not filled in here, but when the paths of ``data`` and of a
recorded teacher are opened.

A recipe may begin with ``extends: other.yaml``, a path from its own folder. Its keys are then
merged into the other recipe's, section by section. A list, a value or null replaces what stood
there; so does a section with another ``source``. A recipe that is written out extends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.credentials import without_credentials
from qcrd_ray.recipe.validation_errors import Keys, explain, with_empty_sections

# 1e-4: a number in YAML 1.2, a text to PyYAML
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")


# A recipe is small; what is above these is another file, or made to take long.
MAX_BYTES = 1 << 20
MAX_KEYS = 20_000  # an alias counts as often as it is used
MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """YAML's safe tags only, no Python objects; at most MAX_DEPTH levels."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth == MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads back."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Quote Unicode's line ends, which PyYAML writes as they are and reads back as blanks."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None
    )


_Dumper.add_representer(str, _represent_text)
for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, merged into those that it extends.

    Args:
        path: the YAML file.
        overrides: keys with YAML values, such as ``train.rounds=4``; they come last.

    Raises:
        UserError: names file and line (or the override), the key, and what was expected.
    """
    tree, where = _read_tree(Path(path))
    for override in overrides:
        _override(tree, where, override)
    tree = with_empty_sections(tree)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, tree, where, str(path))) from None


def build_recipe(source: str | Path | Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    """A recipe from a file or from plain values, with ``changes`` laid over it by dotted key.

    Raises:
        UserError: see :func:`load_recipe`.
    """
    if isinstance(source, Mapping):
        tree, where, name = deepcopy(dict(source)), {}, "the recipe"
    else:
        (tree, where), name = _read_tree(Path(source)), str(source)
    for key, value in changes.items():
        path = tuple(key.split("."))
        laid = value
        for part in reversed(path):
            laid = {part: laid}
        places = {tuple(each.split(".")): f"{key}=..." for each in flatten({key: value}) if each}
        tree = _merge(tree, where, laid, {path: f"{key}=...", **places})
    tree = with_empty_sections(tree)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, tree, where, name)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included; :func:`load_recipe` reads it back."""
    return yaml.dump(
        recipe.model_dump(mode="json", by_alias=True),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )


def _read_tree(path: Path, extended_by: tuple[Path, ...] = ()) -> tuple[dict, Keys]:
    """The keys of a file over those of the recipe that it extends, and where each key stands."""
    tree, where = _parse(_read(path), str(path))
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: a recipe is a mapping of keys (name, run, task, data ...), not {_kind(tree)}"
        )
    if "extends" not in tree:
        return tree, where
    extended, place = tree.pop("extends"), where.pop(("extends",))
    if not isinstance(extended, str) or not extended.strip():
        raise UserError(
            f"{place}: extends: expected the path of a recipe, from the folder of this one, not"
            f" {_kind(extended)}"
        )
    other, chain = path.parent / Path(extended).expanduser(), (*extended_by, path)
    if other.resolve() in [each.resolve() for each in chain]:
        raise UserError(
            f"{place}: extends: {' -> '.join(each.name for each in (*chain, other))} goes in a"
            " circle"
        )
    if not other.is_file():
        raise UserError(f"{place}: extends: there is no recipe {other}")
    base, base_where = _read_tree(other, chain)
    return _merge(base, base_where, tree, where), base_where


def _merge(base: dict, base_where: Keys, tree: dict, where: Keys, path: tuple = ()) -> dict:
    """Merge ``tree`` into a copy of ``base``, section by section.

    The places of its keys go into ``base_where``, which is changed in place.
    """
    merged = dict(base)  # two keys of a YAML file may be one object
    for key, value in tree.items():
        at, below = (*path, key), base.get(key)
        if (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("source") in (None, below.get("source"))
        ):
            merged[key] = _merge(below, base_where, value, where, at)
            inner = (at,)
        else:
            merged[key] = value
            for old in [each for each in base_where if each[: len(at)] == at]:
                del base_where[old]
            inner = [each for each in where if each[: len(at)] == at]
        base_where.update({each: where[each] for each in inner if each in where})
    return merged


def _read(path: Path) -> str:
    if not path.is_file():
        what = (
            "is a folder, not a recipe"
            if path.is_dir()
            else "there is no such recipe; `qcrd init` writes one to start from"
        )
        raise UserError(f"{path}: {what}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path}: {size:,} bytes are no recipe, which has at most {MAX_BYTES:,}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}"
        ) from None
    if not text.strip():
        raise UserError(f"{path}: the recipe is empty; `qcrd init` writes one to start from")
    return text


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"train": {"rounds": 4}} -> {"train.rounds": 4}."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flatten(branch, f"{prefix}.{name}" if prefix else name).items()
    }


def within(key: str, parts: Sequence[str]) -> bool:
    """Whether a dotted key of a recipe is one of ``parts`` or lies under one.

    train.rounds is within train.
    """
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def _parse(text: str, name: str) -> tuple[Any, Keys]:
    """The YAML document as plain values, and the place of each of its keys, "file:line" by path."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        where: Keys = {}
        if node is not None:
            _locate(node, (), name, where, set())
        return (None if node is None else loader.construct_document(node)), where
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None, error
        raise UserError(
            f"{name}:{mark.line + 1}: not YAML that a recipe may hold: {error.problem}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date like 2024-13-45
        raise UserError(f"{name}: not YAML that a recipe may hold: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _locate(node: yaml.Node, path: tuple, name: str, where: Keys, above: set[int]) -> None:
    """Add the place of every key below ``node`` to ``where``.

    Refuses a key that is given twice, a node that contains itself, and more than MAX_KEYS places.
    """
    if len(where) > MAX_KEYS:
        raise UserError(
            f"{name}: more than {MAX_KEYS:,} keys and items; each alias repeats what it names"
        )
    if id(node) in above:
        raise UserError(
            f"{name}:{node.start_mark.line + 1}: {'.'.join(map(str, path))} holds itself"
        )
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{name}:{key.start_mark.line + 1}"
            at = (*path, key.value if isinstance(key, yaml.ScalarNode) else str(key.value))
            if at in where:
                raise UserError(
                    f"{here}: {'.'.join(map(str, at))} is given twice, first at {where[at]};"
                    " keep one"
                )
            where[at] = here
            _locate(value, at, name, where, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            where[(*path, index)] = f"{name}:{item.start_mark.line + 1}"
            _locate(item, (*path, index), name, where, above)


def _override(tree: dict, where: Keys, override: str) -> None:
    """Set one dotted key of ``tree``, which is changed in place."""
    key, equals, value = override.partition("=")
    path = tuple(key.strip().split("."))
    name = f"--set {without_credentials(override)}"
    if not equals or not all(path):
        raise UserError(f"{name}: expected key=value, e.g. --set train.rounds=4")
    parsed, _ = _parse(value, name)
    for depth, part in enumerate(path[:-1], 1):
        if tree.get(part) is None:
            tree[part] = {}
        tree = tree[part]
        if not isinstance(tree, dict):
            raise UserError(f"{name}: {'.'.join(path[:depth])} holds {_kind(tree)}, not keys")
        where.setdefault(path[:depth], name)
    tree[path[-1]] = parsed
    for old in [at for at in where if at[: len(path)] == path]:
        del where[old]
    where[path] = name


def _kind(value: object) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else f"{value!r}"
