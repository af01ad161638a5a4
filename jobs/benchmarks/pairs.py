"""Benchmarks as pairs: two sides take turns, and the median of the pairs counts.

A machine that others use is now fast and now slow. Two sides that are measured one after the other,
within seconds, meet the same machine; their ratio can be compared with that of another day.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from qcrd_ray.runs.provenance import describe_code

# The figures of one pair. The argument says whether the second side goes first.
Measure = Callable[[bool], dict[str, float]]


@dataclass(frozen=True)
class Size:
    """How large a benchmark is, and where it may keep what it makes."""

    work: Path
    tiny: bool = False  # so small that it shows nothing but that it works

    def of(self, usual: int, tiny: int) -> int:
        """``usual``, or ``tiny`` where the size is that."""
        return tiny if self.tiny else usual


@dataclass(frozen=True)
class Target:
    """What a figure must reach, and what it should. ``at_most``: smaller is better."""

    must: float
    aim: float
    at_most: bool = False

    def reached(self, value: float) -> str:
        """Which of the two ``value`` reaches: "aim", "must" or "no"."""
        sign = -1 if self.at_most else 1
        return next(
            (
                name
                for name, goal in (("aim", self.aim), ("must", self.must))
                if sign * value >= sign * goal
            ),
            "no",
        )


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: what it compares, and how a pair of it is measured."""

    what: str
    prepare: Callable[[Size], AbstractContextManager[Measure]]
    targets: Mapping[str, Target] = field(default_factory=dict)  # by figure
    pairs: int = 7
    warm_up: bool = True  # a first pair that is not counted


def run(name: str, benchmark: Benchmark, size: Size, *, pairs: int | None = None) -> dict:
    """Measure a benchmark; return what its file holds."""
    count = pairs or (1 if size.tiny else benchmark.pairs)
    began = time.monotonic()
    with benchmark.prepare(size) as measure:
        if benchmark.warm_up and not size.tiny:
            measure(False)
        rows = [measure(bool(turn % 2)) for turn in range(count)]
    figures = {
        figure: _spread([row[figure] for row in rows if figure in row])
        for figure in dict.fromkeys(figure for row in rows for figure in row)
    }
    return {
        "name": name,
        "what": benchmark.what,
        "figures": figures,
        "targets": {
            figure: {
                "must": target.must,
                "aim": target.aim,
                "reached": target.reached(figures[figure]["median"]),
            }
            for figure, target in benchmark.targets.items()
            if figure in figures
        },
        "pairs": count,
        "tiny": size.tiny,
        "seconds": round(time.monotonic() - began, 1),
        "cores": os.cpu_count(),
        "code": describe_code(),
    }


def both(
    second_first: bool, first: Callable[[], float], second: Callable[[], float]
) -> tuple[float, float]:
    """What the two sides give, in the order in which they are named."""
    if second_first:
        later = second()
        return first(), later
    return first(), second()


def seconds_of(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def table(folder: Path) -> str:
    """The kept results of ``folder`` as a Markdown table."""
    lines = [
        "| benchmark | pairs | figure | median [least..most] | must | aim | reached |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    for result in _results(folder):
        for figure, spread in result["figures"].items():
            target = result["targets"].get(figure, {})
            lines.append(
                f"| `{result['name']}` | {result['pairs']} | {figure} | {_shown(spread)} |"
                f" {target.get('must', '')} | {target.get('aim', '')} |"
                f" {target.get('reached', '')} |"
            )
    return "\n".join(lines) + "\n"


def _results(folder: Path) -> Iterator[dict]:
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        if isinstance(result, dict) and "figures" in result:
            yield result


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": _rounded(statistics.median(values)),
        "min": _rounded(min(values)),
        "max": _rounded(max(values)),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _shown(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:,g} [{spread['min']:,g}..{spread['max']:,g}]"
