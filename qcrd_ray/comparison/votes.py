"""Votes in a comparison: what each method's samples reach, and the claims that are tested.

A row is named `method/row`: `dss/rationale` is the greedy answer, `dss/judged vote of 8` a vote of
eight samples. Claims (`compare.pairs`) are written down in the recipe before a comparison is run,
and corrected among themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.statistics import summarise
from qcrd_ray.comparison.trials import Trial
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA
from qcrd_ray.evaluation.votes import vote_name
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import Recipe

GREEDY = ("label", "rationale")  # rows that every pair of methods is compared in


def check_pairs(recipe: Recipe, methods: Sequence[Method]) -> None:
    """Refuse claims about methods that are not compared, or rows that a method does not have."""
    recipes = {method.name: method.recipe for method in methods}
    for pair in recipe.compare.pairs:
        for each in pair:
            method, _, row = each.partition("/")
            if method not in recipes or not row:
                raise UserError(
                    f"compare.pairs: {each}: expected `method/row` with one of the compared"
                    f" methods ({', '.join(recipes)}), e.g. dss/rationale"
                )
            if row not in (rows := rows_of(recipes[method])):
                raise UserError(
                    f"compare.pairs: {each}: {method} has no row {row!r}; it has {', '.join(rows)}"
                )


def rows_of(recipe: Recipe) -> list[str]:
    """The rows that a method with this recipe has in the table."""
    heads, n = OBJECTIVES[recipe.objective.name].heads(), recipe.judge.samples
    if not n or "rationale" not in heads:
        return list(heads)
    judged = [vote_name("judged vote", n, judge) for judge in recipe.judge.all_inputs]
    return [*heads, vote_name("vote", n), *judged, vote_name("best", n), vote_name("any", n)]


def vote_results(
    recipe: Recipe,
    methods: Sequence[str],
    scores: dict[tuple[str, str, str], np.ndarray],
    trials: Sequence[Trial],
) -> list[dict[str, Any]]:
    """By split: the means of every method's heads and votes, and the tests of the claims.

    A row is named `method/row`. [] where no method votes.
    """
    if not any(vote_name("vote", recipe.judge.samples) == head for _, head, _ in scores):
        return []
    costs = _row_costs(trials)
    parts = []
    for split in sorted({split for split, _, _ in scores}):
        present = {
            f"{method}/{head}": scores[split, head, method]
            for method in methods
            for head in dict.fromkeys(head for each, head, name in scores if name == method)
            if (split, head, method) in scores
        }
        pairs = [(second, first) for first, second in recipe.compare.pairs] or _own_pairs(present)
        means, differences = summarise(
            present, resamples=recipe.compare.resamples, seed=recipe.seed, pairs=pairs
        )
        parts.append(
            {
                "split": split,
                "registered": bool(recipe.compare.pairs),
                "means": {
                    name: mean._asdict() | costs[split, name] for name, mean in means.items()
                },
                "pairs": [difference._asdict() for difference in differences],
            }
        )
    return parts


def _own_pairs(rows: Iterable[str]) -> list[tuple[str, str]]:
    """Each method's judged votes against its plain vote and its greedy answer."""
    pairs = []
    for row in rows:
        method, _, head = row.partition("/")
        if head.startswith("judged vote of"):
            n = head.removeprefix("judged vote of ").split()[0]
            pairs += [(f"{method}/vote of {n}", row), (f"{method}/rationale", row)]
    return pairs


def _row_costs(trials: Sequence[Trial]) -> dict[tuple[str, str], dict[str, float]]:
    """Mean tokens and milliseconds of a question, by split and `method/row`."""
    sums: dict[tuple[str, str], list[float]] = {}
    for trial in trials:
        table = pq.read_table(trial.predictions, schema=PREDICTION_SCHEMA)
        for group in (
            table.group_by(["split", "head"])
            .aggregate([("tokens", "sum"), ("milliseconds", "sum"), ("tokens", "count")])
            .to_pylist()
        ):
            found = sums.setdefault((group["split"], f"{trial.method}/{group['head']}"), [0.0] * 3)
            for place, name in enumerate(("tokens_sum", "milliseconds_sum", "tokens_count")):
                found[place] += group[name] or 0.0
    return {
        key: {"tokens": tokens / count, "milliseconds": milliseconds / count}
        for key, (tokens, milliseconds, count) in sums.items()
    }


def judge_means(
    qualities: Sequence[Mapping[str, Mapping[str, Mapping[str, float | None]]]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Means over seeds of a method's judges, by split and judge."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for quality in qualities:
        for split, judges in quality.items():
            for name, values in judges.items():
                for key, value in values.items():
                    if value is not None:
                        found.setdefault(split, {}).setdefault(name, {}).setdefault(key, []).append(
                            value
                        )
    return {
        split: {
            name: {key: sum(values) / len(values) for key, values in each.items()}
            for name, each in judges.items()
        }
        for split, judges in found.items()
    }
