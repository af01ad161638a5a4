"""The methods that can be compared by name. Each is the recipe with some keys changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe

CONTROL = "control"
METHODS: dict[str, dict[str, object]] = {
    # The base's own pretraining data for as long, without a teacher: the gain of more training.
    CONTROL: {"objective.name": "dss", "objective.labels": "gold"},
    "finetune": {"objective.name": "finetune"},
    "single_task": {"objective.name": "single_task"},
    "dss": {"objective.name": "dss"},
    "mi": {"objective.name": "mi"},
    # The paper's ladder from dss to qcrd. Its second step changes two things: dss_voted draws one
    # of the voted positives, qcrd_no_discriminator has negatives and chooses on both sides by
    # minmax. With `objective.selection: sampling`, the latter would stand between the two.
    "dss_voted": {
        "objective.name": "qcrd",
        "objective.weights": "none",
        "objective.beta": 0,
        "objective.selection": "sampling",
        "negatives.student": False,
        "negatives.teacher": False,
        "negatives.corrupted": 0,
        "negatives.evolved": 0,
    },
    "qcrd_no_discriminator": {"objective.name": "qcrd", "objective.weights": "none"},
    "qcrd": {"objective.name": "qcrd"},
    "orpo_distill": {"objective.name": "orpo_distill", "objective.selection": "sampling"},
    "redi": {"objective.name": "redi", "objective.selection": "sampling"},
    "dpo": {"objective.name": "dpo", "objective.selection": "sampling"},
}
# One process a trial, so that the cluster's own scheduling is the parallelism.
_ALONE = {"train.workers": 1, "train.zero_stage": 0, "train.precision": "fp32"}
_SHIFTS = 10**12  # so many that the seeds of two names do not meet


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method under the name that the table gives it.

    ``shift`` is added to its seeds, so that a method under a second name is trained anew.
    ``control`` says that it trains on the control's data and not on the teacher's.
    """

    name: str
    recipe: Recipe
    shift: int = 0
    control: bool = False


def read_methods(
    path: Path, overrides: Sequence[str], names: Sequence[str], *, labels: str | None = None
) -> list[Method]:
    """The recipes of the methods in ``names``.

    A name is a method, one of the recipe's own ``compare.variants``, or ``alias=method`` for a
    method under a second name. ``labels`` (gold, vote) replaces ``objective.labels`` for all.

    Raises:
        UserError: a name that is unknown, that occurs twice, or whose keys the recipe does not
            take.
    """
    base = load_recipe(path, overrides)
    variants = base.compare.variants
    if clash := sorted(set(variants) & set(METHODS)):
        raise UserError(
            f"{path}: compare.variants.{clash[0]}: that is the name of a method; name the variant"
            " otherwise"
        )
    if (
        CONTROL in {name.partition("=")[2] or name for name in names}
        and base.compare.control is None
    ):
        raise UserError(
            f"{path}: compare.control: is missing, and the method `control` trains on it"
        )
    methods = []
    for name in names:
        alias, _, target = name.partition("=")
        changes = (
            _changes(target or alias, variants, path)
            | _ALONE
            | ({"objective.labels": labels} if labels else {})
        )
        changed = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        recipe = load_recipe(path, [*overrides, *changed])
        shift = keyed_seed(0, "alias", alias) % _SHIFTS if target else 0
        methods.append(
            Method(name=alias, recipe=recipe, shift=shift, control=(target or alias) == CONTROL)
        )
    if len({method.name for method in methods}) < len(methods):
        raise UserError(
            f"--methods: {', '.join(names)}: a name occurs twice; to run a method twice, give it a"
            " second name: again=dss"
        )
    return methods


def _changes(name: str, variants, path: Path, seen: tuple[str, ...] = ()) -> dict[str, object]:
    """The dotted keys of a method; of a variant, on top of those of the method that it is like."""
    if name in METHODS:
        return METHODS[name]
    if name not in variants or name in seen:
        known = ", ".join([*METHODS, *variants])
        what = (
            f"compare.variants: {' -> '.join([*seen, name])} goes in a circle"
            if name in seen
            else f"--methods: {name}: unknown"
        )
        raise UserError(f"{path}: {what}; known are {known}, and your own in compare.variants")
    return _changes(variants[name].like, variants, path, (*seen, name)) | variants[name].set
