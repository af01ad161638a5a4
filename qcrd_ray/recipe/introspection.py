"""Descriptions of the sections' types, for errors, `qcrd init` and the reference."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic.fields import FieldInfo

from qcrd_ray.recipe.base import Section

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers", Any: "values"}
_SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def fields(model: type[Section]) -> dict[str, FieldInfo]:
    """The fields of a section, by their keys in a recipe file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def sections(annotation: Any) -> list[type[Section]]:
    """The sections that a type mentions: itself, or the members of a union, tuple or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in sections(part)]


def choices(annotation: Any) -> list[str]:
    """The values of a `Literal`, also of one in a union; [] for other types."""
    if typing.get_origin(annotation) is Literal:
        return [str(value) for value in typing.get_args(annotation)]
    if _is_union(annotation) or typing.get_origin(annotation) is typing.Annotated:
        return [value for part in typing.get_args(annotation) for value in choices(part)]
    return []


def keys(model: type[Section], prefix: str = "") -> Iterator[str]:
    """All dotted keys of a section, those of its sections too."""
    for key, field in fields(model).items():
        yield prefix + key
        for section in sections(field.annotation):
            yield from keys(section, f"{prefix}{key}.")


def description(field: FieldInfo) -> str:
    """A field's docstring on one line."""
    return " ".join((field.description or "").split())


def summary(field: FieldInfo) -> str:
    """The values that a field may have, where they are a few, and its first sentence."""
    options = choices(field.annotation)
    sentence = description(field).split(". ")[0].removesuffix(".")
    shown = " | ".join(options) if len(options) > 1 else ""
    return ": ".join(filter(None, (shown, sentence)))


def default(field: FieldInfo) -> Any:
    """A field's default as plain values. Only for a field that has one."""
    value = field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


def type_text(field: FieldInfo) -> str:
    """A field's type in words: "whole number ≥ 1, or null"."""
    return _type_text(field.annotation, field.metadata)


def _type_text(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_text(arguments[0], annotation.__metadata__)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if _is_union(annotation):
        parts = [_type_text(part) for part in arguments if part is not types.NoneType]
        null = ["null"] if types.NoneType in arguments else []
        return ", or ".join(dict.fromkeys([*parts, *null]))
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_PLURALS.get(arguments[0]) or _type_text(arguments[0])}"
    if origin is dict:
        return f"mapping to {_PLURALS.get(arguments[1]) or _type_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return f"{_NAMES[annotation]}{_bounds(metadata)}"


def _bounds(metadata: typing.Sequence[Any]) -> str:
    """ " ≥ 0.0 and ≤ 1.0", from pydantic's constraints."""
    found: Mapping[str, str] = {
        name: f"{sign} {getattr(part, name):g}"
        for part in _unpacked(metadata)
        for name, sign in _SIGNS
        if getattr(part, name, None) is not None
    }
    return f" {' and '.join(found.values())}" if found else ""


def _unpacked(metadata: typing.Sequence[Any]) -> Iterator[Any]:
    for part in metadata:
        if isinstance(part, FieldInfo):
            yield from part.metadata
        else:
            yield part


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
