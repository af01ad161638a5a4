"""The recipe's JSON schema, with which an editor completes and checks recipe files.

An editor with the YAML language server finds it by the first line of a recipe:
`# yaml-language-server: $schema=recipe.schema.json`, a path from the recipe's own folder.
"""

from __future__ import annotations

from typing import Any

from qcrd_ray.recipe import Recipe

_EXTENDS = {
    "type": "string",
    "description": "path of another recipe, from this file's folder; the keys here replace its own",
}


def recipe_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a recipe file.

    It names the keys that a whole recipe needs at its top level. Inside a section every key may be
    missing, since a recipe that extends another one gives only what it changes.
    """
    schema = Recipe.model_json_schema()
    required = schema.pop("required")
    schema["properties"] = {"extends": _EXTENDS} | schema["properties"]
    schema["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    for section in schema["$defs"].values():
        section.pop("required", None)
    # without `source`, a teacher fits several kinds
    teacher = schema["properties"]["teacher"]
    teacher["anyOf"] = teacher.pop("oneOf")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
