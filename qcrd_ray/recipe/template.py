"""`qcrd init --full`: a recipe with every key, its default and meaning, from the recipe's types."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic.fields import FieldInfo

from qcrd_ray.recipe import (
    DataRecipe,
    Recipe,
    Section,
    ServeTeacher,
    Split,
    StudentRecipe,
    TaskRecipe,
)
from qcrd_ray.recipe.introspection import default, fields, sections, summary

# The keys without a default, filled in as a user with their own questions might start.
_START: dict[type[Section], dict[str, Any]] = {
    Recipe: {"name": "my-run", "run": "runs/my-run"},
    TaskRecipe: {"kind": "arithmetic"},
    Split: {},
    ServeTeacher: {"source": "serve", "model": "Qwen/Qwen2.5-7B-Instruct"},
    StudentRecipe: {"model": "google/t5-v1_1-base"},
}
_SPLITS = {
    "train": "data/train.jsonl",
    "validation": "data/validation.jsonl",
    "test": "data/test.jsonl",
}

_HEAD = """\
# A recipe for `qcrd run {name}`. A key that is commented out has the value shown here.
# Questions have id, question, answer (and choices), in JSON Lines, CSV, Parquet or a Hugging Face
# data set (dataset: owner/name). If your columns have other names, give them under data.columns.
# `qcrd doctor {name}` checks all of it before anything expensive starts.
"""


def render(name: str = "recipe.yaml") -> str:
    """The text of a recipe that :func:`qcrd_ray.recipe.file.load_recipe` accepts as it stands."""
    return _HEAD.format(name=name) + "\n".join(_section(Recipe, indent=0)) + "\n"


def _section(model: type[Section], *, indent: int) -> list[str]:
    start = _START.get(model, {})
    lines: list[str] = []
    for key, field in fields(model).items():
        inner = next(iter(sections(field.annotation)), None)
        if model is DataRecipe and key in _SPLITS:
            lines += [f"{'  ' * indent}{key}:", f"{'  ' * (indent + 1)}path: {_SPLITS[key]}"]
        elif inner is not None and (field.is_required() or _is_section(field)):
            if indent == 0:
                lines += ["", *_doc(inner)]
            body = _section(inner, indent=indent + 1)
            commented = all(line.lstrip().startswith("#") or not line for line in body)
            lines += [
                f"{'  ' * indent}{'# ' if commented and not field.is_required() else ''}{key}:",
                *body,
            ]
        elif key in start:
            lines.append(_line(key, start[key], field, indent=indent))
        else:
            lines.append(
                _line(
                    key,
                    default(field),
                    field,
                    indent=indent,
                    commented=True,
                )
            )
    return lines


def _line(key: str, value: Any, field: FieldInfo, *, indent: int, commented: bool = False) -> str:
    shown = (
        yaml.safe_dump(value, default_flow_style=True, width=10_000)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
    text = f"{'  ' * indent}{'# ' if commented else ''}{key}: {shown}"
    remark = summary(field)
    return f"{text:<44} # {remark}" if remark else text


def _doc(model: type[Section]) -> list[str]:
    return [
        f"# {line.strip()}" for line in (model.__doc__ or "").strip().splitlines() if line.strip()
    ]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(default(field), Section)
