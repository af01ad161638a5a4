"""Two models on the same questions: where they differ, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import NamedTuple


class Paired(NamedTuple):
    """Questions by who got them right, and the p-value of McNemar's exact test on those that only one of the two got."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


def pair(first: Mapping[str, bool], second: Mapping[str, bool]) -> Paired:
    """Compare what was right, by question id. ValueError: the two were not asked the same questions."""
    if first.keys() != second.keys():
        raise ValueError(f"{len(first.keys() ^ second.keys())} questions were asked of one of the two only")
    counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for question, right in first.items():
        counts[right, second[question]] += 1
    only_first, only_second = counts[True, False], counts[False, True]
    return Paired(counts[True, True], only_first, only_second, counts[False, False], mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value (Q. McNemar, 1947): were both equally good, each differing question would be a fair coin's toss."""
    differing = only_first + only_second
    tail = sum(comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**differing)
