"""`qcrd init`: a recipe with every key, its default and its meaning, made from the recipe's own
types and so never out of date.
"""

from __future__ import annotations

import types
import typing
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qcrd_ray.recipe import DataRecipe, Recipe, ServeTeacher, Split, StudentRecipe, TaskRecipe

# The keys that a recipe cannot do without, as somebody with own questions would fill them in first.
_START: dict[type[BaseModel], dict[str, Any]] = {
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
# A recipe for `qcrd run {name}`. Keys that are commented out stand at their defaults; those that are not must be there.
# Questions have id, question, answer (and choices), in JSON Lines, CSV, Parquet or a Hugging Face data set (dataset: owner/name).
# Where your columns are called otherwise, say so under data.columns.
# `qcrd doctor {name}` checks all of it before anything expensive starts.
"""


def render(name: str = "recipe.yaml") -> str:
    """The text of a recipe that :func:`qcrd_ray.recipe.file.load_recipe` accepts as it stands."""
    return _HEAD.format(name=name) + "\n".join(_section(Recipe, indent=0)) + "\n"


def _section(model: type[BaseModel], *, indent: int) -> list[str]:
    start = _START.get(model, {})
    lines: list[str] = []
    for key, field in model.model_fields.items():
        name = field.alias or key
        inner = _model_of(field)
        if model is DataRecipe and key in _SPLITS:
            lines += [f"{'  ' * indent}{name}:", f"{'  ' * (indent + 1)}path: {_SPLITS[key]}"]
        elif inner is not None and (field.is_required() or _is_section(field)):
            if indent == 0:
                lines += ["", *_doc(inner)]
            body = _section(inner, indent=indent + 1)
            commented = all(line.lstrip().startswith("#") or not line for line in body)
            lines += [
                f"{'  ' * indent}{'# ' if commented and not field.is_required() else ''}{name}:",
                *body,
            ]
        elif key in start:
            lines.append(_line(name, start[key], field, indent=indent))
        else:
            lines.append(
                _line(
                    name,
                    field.get_default(call_default_factory=True),
                    field,
                    indent=indent,
                    commented=True,
                )
            )
    return lines


def _line(name: str, value: Any, field: FieldInfo, *, indent: int, commented: bool = False) -> str:
    shown = (
        yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
    text = f"{'  ' * indent}{'# ' if commented else ''}{name}: {shown}"
    remark = field.description or _choices(field)
    return f"{text:<44} # {remark}" if remark else text


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _choices(field: FieldInfo) -> str:
    options = [
        option
        for part in _parts(field.annotation)
        if typing.get_origin(part) is typing.Literal
        for option in typing.get_args(part)
    ]
    return " | ".join(str(option) for option in options) if len(options) > 1 else ""


def _doc(model: type[BaseModel]) -> list[str]:
    return [
        f"# {line.strip()}" for line in (model.__doc__ or "").strip().splitlines() if line.strip()
    ]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.get_default(call_default_factory=True), BaseModel)


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section under a key; of the two teachers, the one that a newcomer starts with."""
    return next(
        (
            part
            for part in _parts(field.annotation)
            if isinstance(part, type) and issubclass(part, BaseModel)
        ),
        None,
    )


def _parts(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _parts(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for part in typing.get_args(annotation) for inner in _parts(part)]
    return [annotation]
