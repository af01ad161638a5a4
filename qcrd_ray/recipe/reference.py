"""The reference of all keys of a recipe, docs/recipe.md, written from the sections' types.

python -m qcrd_ray.recipe.reference > docs/recipe.md
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from qcrd_ray.recipe import Recipe, Split
from qcrd_ray.recipe.base import Resources, Section
from qcrd_ray.recipe.introspection import default, description, fields, sections, type_text

HEAD = """\
# The recipe

A recipe is a YAML file with one section per part of the pipeline. Only the sections without
defaults must be there: `name`, `run`, `task`, `data`, `teacher` and `student`. `qcrd init` writes a
short recipe to fill in, `qcrd init --full` one with every key and its default.

- **Another value for one call**: `--set train.rounds=4`, as often as you like. The value is YAML.
- **A recipe based on another one**: `extends: other.yaml`, a path from the recipe's own folder. The
  recipe's keys replace those of the other, section by section. Lists and `null` replace what stood
  there; so does a section with another `source`.
- **Completion and checks in an editor**: `qcrd schema recipe.schema.json` writes a JSON schema.
  With the YAML language server (the YAML extension of VS Code, and others) the recipe's first line
  names it: `# yaml-language-server: $schema=recipe.schema.json`.
- **Mistakes** are reported together, each with its line, its key and what was expected.
  `qcrd doctor recipe.yaml` also checks data, models, memory and the cluster.

A key without a default must be given. Paths of `data` and of a recorded teacher may hold
`${VARIABLES}` of the environment.

This page is written by `python -m qcrd_ray.recipe.reference`, from the types in `qcrd_ray/recipe/`.
"""

# Sections that several keys hold: described once, at the end.
_SHARED: dict[type[Section], str] = {Split: "split", Resources: "resources"}


def render() -> str:
    """The whole page."""
    plain = {key: field for key, field in fields(Recipe).items() if not sections(field.annotation)}
    parts = [HEAD, "## The run\n", _table(plain, prefix="")]
    for key, field in fields(Recipe).items():
        members = sections(field.annotation)
        for member in members:
            heading = key if len(members) == 1 else f"{key} with source: {_source(member)}"
            parts += _section(member, heading=heading, prefix=f"{key}.", level=2)
    for model, name in _SHARED.items():
        parts += _section(model, heading=name.capitalize(), prefix="", level=2)
    return "\n".join(parts)


def _section(model: type[Section], *, heading: str, prefix: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {heading}\n"
    yield f"{inspect.cleandoc(model.__doc__ or '')}\n"
    yield _table(fields(model), prefix=prefix)
    for key, field in fields(model).items():
        for inner in sections(field.annotation):
            if inner not in _SHARED:
                name = f"{prefix}{key}"
                yield from _section(inner, heading=name, prefix=f"{name}.", level=level + 1)


def _table(rows: dict[str, FieldInfo], *, prefix: str) -> str:
    lines = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    for key, field in rows.items():
        cells = (f"`{prefix}{key}`", _type(field), _default(field), description(field))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _type(field: FieldInfo) -> str:
    text = type_text(field)
    for inner in sections(field.annotation):
        if inner in _SHARED:
            return text.replace("section", f"[{_SHARED[inner]}](#{_SHARED[inner]})")
    return text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = default(field)
    if isinstance(value, Section):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(changed)}`" if changed else "its own defaults"
    return f"`{json.dumps(value)}`"


def _source(model: type[Section]) -> str:
    return type_text(model.model_fields["source"]).strip("`")


if __name__ == "__main__":
    print(render(), end="")
