"""Means, intervals and paired tests over questions and seeds.

A score is 0 or 1 for each (seed, question). Both are drawn from something larger, and a claim is about that: so both are resampled
(a two-way bootstrap, Efron and Tibshirani 1993), with the same draws for all methods, which makes differences paired. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

_CHUNK = 1_000  # resamples held in memory at a time


class Mean(NamedTuple):
    """A method's mean accuracy; ``sd`` is over its seeds (0 for one); ``low`` and ``high`` are the 95 % bootstrap interval's ends."""

    mean: float
    sd: float
    low: float
    high: float
    seeds: int
    questions: int


class Difference(NamedTuple):
    """``second`` minus ``first``. ``better`` and ``worse`` count the questions whose score, averaged over seeds, differs; ``holm`` is the
    p-value after Holm's correction over all pairs."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    holm: float
    better: int
    worse: int


def summarise(scores: Mapping[str, np.ndarray], *, resamples: int, seed: int = 0) -> tuple[dict[str, Mean], list[Difference]]:
    """Means of all methods and differences of all pairs. ``scores[name]`` is ``[seeds, questions]``; one shape for all.

    The p-value is two-sided: twice the smaller share of resampled differences on either side of 0, at least 2 / (resamples + 1).
    ValueError: the shapes differ.
    """
    shapes = {array.shape for array in scores.values()}
    if len(shapes) != 1:
        raise ValueError(f"methods have different seeds or questions: { ({name: array.shape for name, array in scores.items()}) }")
    drawn = _resampled_means(np.stack([array.astype(np.float32) for array in scores.values()]), resamples=resamples, seed=seed)
    names = list(scores)
    means = {}
    for place, (name, array) in enumerate(scores.items()):
        low, high = np.quantile(drawn[:, place], (0.025, 0.975))
        sd = float(array.mean(axis=1).std(ddof=1)) if len(array) > 1 else 0.0
        means[name] = Mean(float(array.mean()), sd, float(low), float(high), *array.shape)
    differences = []
    for first, second in combinations(range(len(names)), 2):
        apart = drawn[:, second] - drawn[:, first]
        low, high = np.quantile(apart, (0.025, 0.975))
        by_question = scores[names[second]].mean(axis=0) - scores[names[first]].mean(axis=0)
        differences.append(
            Difference(
                first=names[first],
                second=names[second],
                difference=float(by_question.mean()),
                low=float(low),
                high=float(high),
                p=_two_sided(apart),
                holm=1.0,
                better=int((by_question > 1e-9).sum()),
                worse=int((by_question < -1e-9).sum()),
            )
        )
    corrected = holm([difference.p for difference in differences])
    return means, [difference._replace(holm=p) for difference, p in zip(differences, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (S. Holm, 1979): controls the chance of any false claim in the family, whatever their dependence."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _resampled_means(scores: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """``[methods, seeds, questions]`` -> the mean of each method under each resample, ``[resamples, methods]``."""
    methods, seeds, questions = scores.shape
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=count).astype(np.float32) / seeds
        of_questions = random.multinomial(questions, np.full(questions, 1 / questions), size=count).astype(np.float32) / questions
        drawn.append(np.stack([((of_seeds @ scores[m]) * of_questions).sum(axis=1) for m in range(methods)], axis=1))
    return np.concatenate(drawn)


def _two_sided(differences: np.ndarray) -> float:
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(differences) + 1)))
