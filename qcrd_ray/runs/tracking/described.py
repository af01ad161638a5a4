"""What a tracker is told of a run besides its numbers."""

from __future__ import annotations

from typing import Any

from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import flatten
from qcrd_ray.runs.storage import is_uri, redacted


def params(recipe: Recipe) -> dict[str, Any]:
    """The recipe with dotted keys, without the replicas' environment and a store's credentials."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    tree["run"] = redacted(recipe.run) if is_uri(recipe.run) else recipe.run
    tree["teacher"].pop("env", None)
    return flatten(tree)
